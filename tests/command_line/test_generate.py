"""From text or token ids to text or token ids."""

import shutil
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

import pairform
from tests.broken.damage import edit_json
from tests.command_line.runner import CommandLine, document, refused

TEXT = "the quick brown fox"


def test_generate_reads_and_writes_text(run: CommandLine, pair: Path) -> None:
    sampling = ["--do-sample", "--temperature", 50, "--seed", 1, "--max-new-tokens", 8]
    found = document(run("generate", pair, "--text", TEXT, *sampling, "--json"))
    assert found["input_ids"] == [2, 4, 5, 6, 7]
    assert found["text"] == Tokenizer.from_file(str(pair / "tokenizer.json")).decode(found["output_ids"])
    assert len(found["text"].split()) > 3
    assert run("generate", pair, "--text", TEXT, *sampling).out == found["text"] + "\n"


def test_an_answer_of_special_tokens_alone_is_explained(run: CommandLine, pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A skipped token leaves an empty line, which would look as if nothing had been written."""
    monkeypatch.setattr(pairform.Model, "generate", lambda *_, **__: torch.tensor([[2, 2, 0, 1]]))
    result = run("generate", pair, "--text", TEXT)
    assert (result.code, result.out) == (0, "\n")
    assert result.err == "note: wrote no text, only special tokens: 2 0 1\n"
    assert run("generate", pair, "--text", TEXT, "--json").err == ""


def test_written_text_cannot_steer_a_terminal(run: CommandLine, pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Newlines and tabs are text, and so are the joiners of emoji and of Persian."""
    written = "\x1b[2J\x1b]0;x\x07\u202eone\r\n\ttwo \x9b \U0001f469\u200d\U0001f680"
    monkeypatch.setattr("pairform.cli.text.TextModel.decode", lambda *_: written)
    out = run("generate", pair, "--text", TEXT, "--max-new-tokens", 1).out
    assert out == "\\x1b[2J\\x1b]0;x\\x07\\u202eone\\r\n\ttwo \\x9b \U0001f469\u200d\U0001f680\n"
    assert document(run("generate", pair, "--text", TEXT, "--max-new-tokens", 1, "--json"))["text"] == written


def test_generate_reads_and_writes_ids_without_a_tokenizer(run: CommandLine, pair: Path, tmp_path: Path) -> None:
    pairform.save(pairform.load(pair), tmp_path / "bare")
    words = ["--ids", "2 4,5", "--max-new-tokens", 4]
    found = document(run("generate", tmp_path / "bare", *words, "--json"))
    model = pairform.load(pair)
    assert found["output_ids"] == model.generate(torch.tensor([[2, 4, 5]]), max_new_tokens=4)[0, 1:].tolist()
    assert run("generate", tmp_path / "bare", *words).out.split() == [str(token) for token in found["output_ids"]]
    refused(run("generate", tmp_path / "bare", "--text", TEXT), 1, "tokenizer.json", "--ids")


def test_text_ends_at_any_end_token_of_the_folder(run: CommandLine, sources: tuple[Path, Path], tmp_path: Path) -> None:
    words = ["--ids", "2 4 5", "--max-new-tokens", 8]
    free = run("generate", sources[1], *words).out.split()
    folder = Path(shutil.copytree(sources[1], tmp_path / "model"))
    edit_json(folder / "generation_config.json", lambda found: found.update(eos_token_id=[1, int(free[2])]))
    assert run("generate", folder, *words).out.split() == free[: free.index(free[2]) + 1]


def test_sampling_depends_on_its_options(run: CommandLine, pair: Path) -> None:
    def ids(*options: object) -> list[int]:
        common = ["--ids", "4 5 6", "--do-sample", "--max-new-tokens", 12, "--json"]
        found: list[int] = document(run("generate", pair, *common, *options))["output_ids"]
        return found

    wild = ["--temperature", 50, "--seed", 3]
    assert ids(*wild) == ids(*wild)
    assert ids(*wild) != ids("--temperature", 50, "--seed", 4)
    greedy = document(run("generate", pair, "--ids", "4 5 6", "--max-new-tokens", 12, "--json"))["output_ids"]
    assert ids(*wild, "--top-k", 1) == ids(*wild, "--top-p", 0.001) == greedy


def test_generate_computes_in_the_dtype_it_is_given(run: CommandLine, pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dtypes = []

    def generate(model: pairform.Model, ids: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        dtypes.append(next(model.parameters()).dtype)
        return ids

    monkeypatch.setattr(pairform.Model, "generate", generate)
    run("generate", pair, "--ids", "4", "--dtype", "float64", "--device", "cpu")
    run("generate", pair, "--ids", "4")
    assert dtypes == [torch.float64, torch.float32]


@pytest.mark.parametrize("option", [("--temperature", 0.5), ("--top-k", 3), ("--top-p", 0.9), ("--seed", 1)])
def test_sampling_options_need_do_sample(run: CommandLine, pair: Path, option: tuple[str, float]) -> None:
    refused(run("generate", pair, "--ids", "5", *option), 2, option[0], "--do-sample")
