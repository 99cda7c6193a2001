"""plan, convert with each of its options, verify, export."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import AutoTokenizer, T5GemmaForConditionalGeneration

import pairform
from tests.command_line.runner import CommandLine, document, refused


def test_plan_names_the_origin_of_every_tensor(run: CommandLine, sources: tuple[Path, Path]) -> None:
    large, small = sources
    found = document(run("plan", "--encoder", large, "--decoder", small, "--json"))
    assert found["totals"]["copied"]["tensors"] + found["totals"]["fresh"]["tensors"] == len(found["targets"])
    text = run("plan", "--encoder", large, "--decoder", small, "--rows").out
    assert all(row["target"] in text for row in found["targets"])
    assert "copied" in text.splitlines()[-1]


def test_plan_is_short_whatever_the_depth(
    run: CommandLine, sources: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(sources[0].parent)
    words = ["plan", "--encoder", sources[0].name, "--decoder", sources[1].name]
    found, text = document(run(*words, "--json")), run(*words).out
    table = text.partition("\nchanges to the spec")[0].splitlines()
    assert len(table) < 20
    assert max(map(len, table)) <= 80
    counts = [line.split() for line in table if line.startswith("  ") and line.split()[0] not in ("from", "e.g.", "tensors")]
    assert sum(int(words[1]) for words in counts) == len(found["targets"])
    assert sum(int(words[2].replace(",", "")) for words in counts) == sum(
        total["parameters"] for kind, total in found["totals"].items() if kind != "dropped"
    )
    assert ["layers.*.cross_attention", "16", "14,336", "normal,", "std", "1"] in counts
    assert "      from layers.*.self_attention" in table
    assert all(edit["path"] in text for edit in found["edits"])
    assert "copied" in text.splitlines()[-1]


def test_plan_says_what_is_dropped_and_why(run: CommandLine, pair: Path) -> None:
    text = run("carry", pair, "--set", "decoder.layer.branches.feed_forward.name=mlp").out
    after = text.partition("dropped from the model: ")[2].splitlines()
    assert after[0] == "the new model has no tensor for it"
    assert after[1].split()[:2] == ["layers.*.feed_forward", "12"]
    assert "decoder.layers.0.feed_forward" in run("carry", pair, "--rows").out


def test_convert_then_verify_export_and_generate(run: CommandLine, sources: tuple[Path, Path], tmp_path: Path) -> None:
    large, small = sources
    out, exported = tmp_path / "pair", tmp_path / "exported"
    converted = run("convert", "--encoder", large, "--decoder", small, "--out", out)
    assert "copied" in converted.out
    assert f"{out}: " in converted.out
    assert "ok" in run("verify", out).out
    checked = document(run("verify", out, "--json"))
    assert (checked["ok"], checked["problems"]) == (True, [])
    assert run("export", out, "--out", exported).code == 0
    T5GemmaForConditionalGeneration.from_pretrained(exported)
    assert document(run("generate", exported, "--ids", "5 6 7", "--max-new-tokens", 3, "--json"))["input_ids"] == [5, 6, 7]


def test_verify_fails_on_a_changed_weight(run: CommandLine, sources: tuple[Path, Path], tmp_path: Path) -> None:
    pairform.convert(encoder=sources[0], decoder=sources[1], out=tmp_path / "pair")
    file = tmp_path / "pair" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x7e")
    result = run("verify", tmp_path / "pair")
    assert result.code == 1
    assert "checksum" in result.out
    assert run("verify", tmp_path / "pair", "--json").code == 1


def stored(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a folder, from however many shards."""
    found: dict[str, torch.Tensor] = {}
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as opened:
            found |= {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    return found


QUERY = "decoder.layers.0.cross_attention.block.q_proj.weight"
OUTPUT = "decoder.layers.0.cross_attention.block.o_proj.weight"


class TestConvertOptions:
    @pytest.fixture
    def convert(self, run: CommandLine, sources: tuple[Path, Path], tmp_path: Path) -> Any:
        def convert(*options: object, encoder: Path = sources[0]) -> Path:
            out = tmp_path / "-".join(map(str, options)).replace("/", "")[-60:]
            result = run("convert", "--encoder", encoder, "--decoder", sources[1], "--out", out, *options)
            assert result.code == 0, result.err
            return out

        return convert

    def test_cross_attention(self, convert: Any, sources: tuple[Path, Path]) -> None:
        drawn, silent = stored(convert()), stored(convert("--cross-attention", "zero_output"))
        assert drawn[OUTPUT].any()
        assert not silent[OUTPUT].any()
        small = sources[1]
        copied = stored(convert("--cross-attention", "self_attention", encoder=small))
        assert copied[QUERY].equal(stored(small)["model.layers.0.self_attn.q_proj.weight"])
        assert not stored(convert("--cross-attention", "random", encoder=small))[QUERY].equal(copied[QUERY])

    def test_cross_attention_norms(self, convert: Any) -> None:
        norm = "decoder.layers.0.cross_attention.pre_norm.weight"
        assert stored(convert())[norm].any()
        assert not stored(convert("--cross-attention-norms", "identity"))[norm].any()

    def test_layers(self, convert: Any) -> None:
        spec = pairform.load_spec(convert("--encoder-layers", "every:2", "--decoder-layers", "0,3"))
        assert [stack.depth for stack in spec.stacks.values()] == [3, 2]

    def test_seed(self, convert: Any) -> None:
        one, same, other = (stored(convert("--seed", seed))[QUERY] for seed in (1, "01", 2))
        assert one.equal(same)
        assert not one.equal(other)

    def test_dtype(self, convert: Any) -> None:
        assert {tensor.dtype for tensor in stored(convert("--dtype", "bfloat16")).values()} == {torch.bfloat16}

    def test_spec_and_set(self, convert: Any, tmp_path: Path, pair: Path) -> None:
        (tmp_path / "spec.json").write_text(json.dumps({"extends": str(pair), "head": {"softcap": 10.0}}))
        grouped = "decoder.layer.branches.self_attention.kv_heads=1"
        spec = pairform.load_spec(convert("--spec", tmp_path / "spec.json", "--set", grouped))
        assert set(pairform.diff(pairform.load_spec(pair), spec)) == {"head.softcap", grouped.partition("=")[0]}

    def test_max_shard_size(self, convert: Any) -> None:
        assert len(list(convert("--max-shard-size", "100KB").glob("*.safetensors"))) > 1

    def test_format(self, convert: Any) -> None:
        T5GemmaForConditionalGeneration.from_pretrained(convert("--format", "transformers"))

    def test_overwrite(self, convert: Any) -> None:
        first = convert("--overwrite")
        assert pairform.verify(convert("--overwrite")).ok
        assert not list(first.parent.glob(".*"))

    def test_json(self, run: CommandLine, sources: tuple[Path, Path], tmp_path: Path) -> None:
        out = tmp_path / "pair"
        found = document(run("convert", "--encoder", sources[0], "--decoder", sources[1], "--out", out, "--json"))
        assert (found["out"], found["bytes"]) == (str(out), sum(tensor.nbytes for tensor in stored(out).values()))

    def test_revision_is_for_the_hub(self, run: CommandLine, sources: tuple[Path, Path], tmp_path: Path) -> None:
        words = ["--encoder", sources[0], "--decoder", sources[1], "--out", tmp_path / "pair"]
        refused(run("convert", *words, "--encoder-revision", "main"), 1, "'main' for a folder")
        refused(run("convert", *words, "--decoder-revision", "main"), 1, "'main' for a folder")


def test_transformers_loads_the_tokenizer_that_came_along(pair: Path) -> None:
    assert AutoTokenizer.from_pretrained(pair)("the quick brown fox")["input_ids"] == [2, 4, 5, 6, 7]
