"""The model card: metadata that the hub reads, the licence that the bases ask for, code that runs, and nothing injected."""

import json
import re
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
from huggingface_hub import ModelCard
from transformers import LlamaConfig, LlamaForCausalLM

import pairform
from pairform.training.adaptation.export import export as export_run
from pairform.training.adaptation.run import adapt
from tests.adaptation.small_run import EVALUATION, write_run
from tests.broken.damage import edit_json, refused
from tests.checkpoints import SMALL, gemma2, t5gemma2
from tests.hub.server import Hub

GEMMA_NOTICE = "Gemma is provided under and subject to the Gemma Terms of Use found at"


def parsed(folder: Path | str, **options: Any) -> tuple[dict[str, Any], str]:
    """Metadata and text of a card, as huggingface_hub reads them."""
    card = ModelCard(pairform.model_card(folder, **options))
    return card.data.to_dict(), card.text  # type: ignore[no-untyped-call]


def llama(folder: Path, license: str | None) -> Path:
    fields = ("vocab_size", "hidden_size", "intermediate_size", "num_attention_heads", "initializer_range")
    config = LlamaConfig(**{name: SMALL[name] for name in fields}, num_hidden_layers=2, pad_token_id=0)
    LlamaForCausalLM(config).save_pretrained(folder)
    if license is not None:
        (folder / "README.md").write_text(f"---\nlanguage: en\nlicense: {license}\n---\n# A model\nlicense: mit\n")
    return folder


def converted(encoder: Path | str, decoder: Path | str, out: Path) -> Path:
    pairform.convert(encoder=encoder, decoder=decoder, out=out)
    return out


def test_a_pair_of_the_hub(hub: Hub, pair: Path, tmp_path: Path) -> None:
    source = gemma2(tmp_path / "gemma")
    pairform.push(source, "lab/gemma-base")
    made = converted("lab/gemma-base", source, tmp_path / "made")
    data, text = parsed(made, repository="lab/made_of-it")
    assert data["library_name"] == "pairform"
    assert data["base_model"] == ["lab/gemma-base"]
    assert data["pipeline_tag"] == "text-generation"
    assert {"pairform", "encoder-decoder", "gemma2"} <= set(data["tags"])
    assert "```mermaid\n" in text
    assert f"{pairform.inspect(pairform.load_spec(made)).parameters['total']:,} parameters" in text
    assert "`pairform convert`" in text
    assert "copied" in text
    commit = hub.repositories["lab/gemma-base"].branches["main"]
    assert f"https://huggingface.co/lab/gemma-base/tree/{commit}" in text
    # the origin survives export and extract
    pairform.export(made, tmp_path / "export")
    pairform.extract(made, tmp_path / "part", part="encoder")
    for name, library in {"export": "transformers", "part": "pairform"}.items():
        data, _ = parsed(tmp_path / name)
        assert (data["base_model"], data["library_name"], data["license"]) == (["lab/gemma-base"], library, "gemma")


def test_the_code_in_a_card_runs(hub: Hub, pair: Path, tmp_path: Path) -> None:
    pairform.export(pair, tmp_path / "export")
    pairform.extract(pair, tmp_path / "part", part="decoder", format="transformers")
    pairform.push(pair, "lab/pair")
    for folder in ("lab/pair", tmp_path / "export", tmp_path / "part"):
        blocks = re.findall(r"```python\n(.*?)```", pairform.model_card(folder, repository=str(folder)), re.DOTALL)
        assert len(blocks) == 2
        for block in blocks:
            names: dict[str, Any] = {}
            exec(block, names)
            assert sum(each.numel() for each in names["model"].parameters()) > 0


def test_gemma_terms_are_passed_on(hub: Hub, tmp_path: Path) -> None:
    made = converted(gemma2(tmp_path / "gemma"), llama(tmp_path / "llama", "apache-2.0"), tmp_path / "made")
    data, text = parsed(made)
    assert data["license"] == "gemma", "the stricter of two"
    assert GEMMA_NOTICE in text
    assert "modified" in text
    pairform.push(made, "lab/made")
    notice = hub.repositories["lab/made"].main["NOTICE"].decode()
    assert notice.startswith(f"{GEMMA_NOTICE} ai.google.dev/gemma/terms")
    # they also bind what is made of it, from the hub or from a folder
    for source in ("lab/made", made):
        pairform.carry(source, out=tmp_path / "carried", overwrite=True)
        assert parsed(tmp_path / "carried")[0]["license"] == "gemma"
    assert GEMMA_NOTICE in parsed(made, license="apache-2.0")[1], "the author's licence does not replace the notice"
    (made / "NOTICE").write_text("Mine")
    refused(lambda: pairform.push(made, "lab/made"), "NOTICE", GEMMA_NOTICE)
    (made / "NOTICE").write_text(f"Mine. {GEMMA_NOTICE} ai.google.dev/gemma/terms")
    pairform.push(made, "lab/made")
    assert hub.repositories["lab/made"].main["NOTICE"].startswith(b"Mine")


@pytest.mark.parametrize(
    ("licenses", "expected"),
    [
        (("apache-2.0", "apache-2.0"), "apache-2.0"),
        (("apache-2.0", "mit"), None),
        (("apache-2.0", None), None),
        ((None, None), None),
        (('"Apache-2.0"', "apache-2.0"), "apache-2.0"),
        (("apache-2.0\nbase_model: evil/model", "[mit]"), None),
    ],
)
def test_licences_of_other_bases(licenses: tuple[str | None, ...], expected: str | None, tmp_path: Path) -> None:
    sources = [llama(tmp_path / str(number), license) for number, license in enumerate(licenses)]
    made = converted(sources[0], sources[1], tmp_path / "made")
    data, text = parsed(made)
    assert data.get("license") == expected
    assert ("licence is not stated" in text) == (expected is None)
    assert parsed(made, license="CC-BY-4.0")[0]["license"] == "cc-by-4.0"
    assert "evil" not in json.dumps(data)


def test_a_trained_model_says_how(tmp_path: Path) -> None:
    adapt(write_run(tmp_path, EVALUATION), tmp_path / "run")
    export_run(tmp_path / "run", tmp_path / "model")
    _, text = parsed(tmp_path / "model")
    assert "`pairform adapt`" in text
    assert "step `6`" in text
    loss = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])["loss"]
    assert f"| {loss:,.6g} |" in text
    assert '"learning_rate": 0.003' in text
    assert str(tmp_path) not in text


def test_a_run_passes_on_the_bases_of_its_model(tmp_path: Path) -> None:
    sources = [gemma2(tmp_path / name, seed=seed, vocab_size=300) for seed, name in enumerate(("one", "other"))]
    made = converted(sources[0], sources[1], tmp_path / "made")
    adapt(write_run(tmp_path, {"model": str(made), "steps": 2}), tmp_path / "run")
    export_run(tmp_path / "run", tmp_path / "model")
    data, text = parsed(tmp_path / "model")
    assert data["license"] == "gemma"
    assert "| `other` | `gemma2` | `gemma` |" in text


@pytest.mark.parametrize(
    ("folder", "task"), [("pictures", "image-text-to-text"), ("encoder", "feature-extraction"), ("decoder", "text-generation")]
)
def test_the_task_follows_from_the_model(folder: str, task: str, pair: Path, tmp_path: Path) -> None:
    if folder == "pictures":
        t5gemma2(tmp_path / folder)
    else:
        pairform.extract(pair, tmp_path / folder, part="encoder" if folder == "encoder" else "decoder")
    assert parsed(tmp_path / folder)[0]["pipeline_tag"] == task


HOSTILE = "x](https://evil.example) `<script>alert(1)</script>` | # \n---\nlicense: mit\n---\n\x1b[31m\u202e"


def test_nothing_in_a_folder_becomes_markup(pair: Path, tmp_path: Path) -> None:
    folder = copytree(pair, tmp_path / "pair")

    def spoil(document: dict[str, Any]) -> None:
        good = document["bases"][0]
        document["bases"] = [
            {"name": HOSTILE, "revision": "1"},
            {"name": "a/b", "revision": HOSTILE},
            {"name": "<b>x</b> `](https://evil.example)", "revision": "1", "license": "mit"},
            "text",
            good,
        ]
        document["options"] = {HOSTILE: HOSTILE, "seed": [HOSTILE]}
        document["targets"][0]["target"] = HOSTILE
        document["targets"].append({"target": 5, "shape": "x", "operation": None})

    edit_json(folder / "provenance.json", spoil)
    data, text = parsed(folder, repository="lab/__x__")
    assert data["license"] == "gemma"
    assert "base_model" not in data
    outside = re.sub(r"`+[^`\n]*`+", "", text)
    assert "<script>" not in outside
    assert "](https://evil" not in outside
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "# \\_\\_x\\_\\_\n" in text


@pytest.mark.parametrize(
    "origin", [None, 5, [], {"origin": "adapt", "metrics": 3, "recipe": "x"}, {"origin": "convert", "targets": [1]}]
)
def test_odd_records_are_left_out(origin: Any, pair: Path, tmp_path: Path) -> None:
    folder = copytree(pair, tmp_path / "pair")
    edit_json(
        folder / "provenance.json", lambda document: document.update(origin if isinstance(origin, dict) else {"origin": origin})
    )
    assert "## Licence" in parsed(folder)[1]


def test_a_card_that_is_there_is_kept(hub: Hub, pair: Path, tmp_path: Path) -> None:
    folder = copytree(pair, tmp_path / "pair")
    (folder / "README.md").write_text("# Mine")
    pairform.push(folder, "lab/pair")
    assert hub.repositories["lab/pair"].main["README.md"] == b"# Mine"
    refused(lambda: pairform.push(folder, "lab/pair", license="mit"), "license", "README.md")
    pairform.push(folder, "lab/pair", card="replace")
    assert "pairform.load" in hub.repositories["lab/pair"].main["README.md"].decode()
    assert (folder / "README.md").read_text() == "# Mine"
