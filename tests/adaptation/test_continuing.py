"""What a run goes on with, and where it may be."""

import json
from pathlib import Path

import pytest

from pairform.registry import OutputError
from pairform.training.adaptation.run import adapt
from pairform.training.data.corpus.prepare import prepare
from tests.adaptation.small_run import write_run


def test_a_run_does_not_go_on_with_other_data_or_another_model(tmp_path: Path) -> None:
    recipe = write_run(tmp_path, {"steps": 1})
    adapt(recipe, tmp_path / "run")
    spec = json.loads((tmp_path / "spec.json").read_text())
    (tmp_path / "spec.json").write_text(json.dumps(spec | {"decoder": spec["decoder"] | {"width": 48}}))
    with pytest.raises(OutputError, match="the spec of another model"):
        adapt(recipe, tmp_path / "run")
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text(corpus.read_text() * 2)
    prepare(tmp_path / "corpus.json", tmp_path / "shards", overwrite=True)
    with pytest.raises(OutputError, match="shards of the digest"):
        adapt(recipe, tmp_path / "run")


def test_a_run_is_kept_out_of_the_shards(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="in the folder of the shards"):
        adapt(write_run(tmp_path), tmp_path / "shards" / "run")
    assert not (tmp_path / "shards" / "run").exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"recipe.json/run: .*a file that can be written"):
        adapt(write_run(tmp_path), tmp_path / "recipe.json" / "run")
