"""A study that cannot be run says so before its first trial, and leaves nothing behind."""

import gzip
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pairform.registry import PairformError
from tests.studies.small_study import run

TEXT = {"name": "text", "train": ["train.txt"], "held_out": ["held.txt"], "symbols": None, "length": None}
PAIRS = {"name": "pairs", "train": ["some.jsonl"], "held_out": ["pairs.jsonl"], "symbols": None, "length": None}
BYTES = {"base": {"vocabulary": 300}}
BROKEN: dict[str, tuple[dict[str, Any], list[str]]] = {
    "unknown path in the grid": (
        {"grid": {"decoder.layr.norm": [1]}},
        ["variant 'separate' with norm=1 and 1 other: decoder.layr"],
    ),
    "unknown path in a variant": ({"variants": {"odd": {"decoder": {"dept": 2}}}}, ["variant 'odd': decoder.dept", "unknown"]),
    "unknown setting": ({"variants": {"odd": {"training": {"stepz": 2}}}}, ["variant 'odd': training.stepz"]),
    "a setting of the training in a variant": (
        {"variants": {"odd": {"optimizer": {"learning_rate": 1.0}}}},
        ["variant 'odd': optimizer: found a setting of `training`", "expected training.optimizer."],
    ),
    "a setting of the optimiser in the grid": (
        {"grid": {"learning_rate": [0.1]}},
        ["grid.learning_rate: found a setting of `training`", "expected training.optimizer.learning_rate."],
    ),
    "a setting of the optimiser in training": (
        {"training": {"learning_rate": 0.1}},
        ["training.learning_rate", "Did you mean 'optimizer.learning_rate'?"],
    ),
    "an abbreviation of a setting": ({"training": {"lr": 0.1}}, ["training.lr", "Did you mean 'optimizer.learning_rate'?"]),
    "an abbreviation of a setting in a variant": (
        {"variants": {"odd": {"lr": 0.1}}},
        ["variant 'odd': lr: found a setting of `training`", "expected training.optimizer.learning_rate."],
    ),
    "a field that a variant does not have": (
        {"variants": {"odd": {"init": "new"}}},
        ["variant 'odd': init: found an unknown field with value 'new'", " training, ", ", weights.", "`weights` where its"],
    ),
    "a misspelt stack": ({"variants": {"odd": {"decodr": {"depth": 2}}}}, ["decodr", "Did you mean 'decoder' or 'encoder'?"]),
    "a design by its name alone": ({"design": "full"}, ['design: found \'full\', expected an object. Write {"name": "full"}.']),
    "what to match by alone": ({"match": "flops"}, ['Write {"by": "flops"}.']),
    "a length of texts": (
        {"data": TEXT | {"length": [1, 1]}} | BYTES,
        ["data.length", "one of encoder_tokenizer, field, held_out, name, objective, tokenizer, train, validation."],
    ),
    "an objective without a name": (
        {"data": TEXT | {"objective": {"source": 3}}} | BYTES,
        ["data.objective.name: found nothing, expected 'prefix_lm' or 'span_corruption' or 'ul2': this field is required."],
    ),
    "a level with a space": (
        {"variants": None, "factors": {"norm": {"pre": {}, "no norm": {}}}},
        ["'no norm', expected a name of 1 to 64 characters without spaces and `=`"],
    ),
    "empty grid": ({"grid": {"decoder.depth": []}}, ["grid.decoder.depth", "no value"]),
    "a variant that does not validate": (
        {"variants": {"odd": {"decoder": {"layer": {"branches": {"self_attention": {"kv_heads": 3}}}}}}},
        ["variant 'odd': decoder.layer", "kv_heads"],
    ),
    "positions too few for the data": (
        {"variants": {"odd": {"encoder": {"position": {"name": "learned", "length": 2}}}}},
        ["variant 'odd': positions", "positions below 2"],
    ),
    "a value twice in the grid": (
        {"grid": {"decoder.depth": [2, 1, 2.0]}},
        ["grid.decoder.depth[2]: found 2.0", "the value at [0]", "each value once"],
    ),
    "values written alike in the grid": ({"grid": {"decoder.depth": [1, "1"]}}, ["grid.decoder.depth[1]: found '1'"]),
    "a path of too many steps": ({"grid": {".".join(["training"] * 100_000): [1]}}, ["grid: found 'training.training"]),
    "half of a surrogate pair": ({"variants": {"\ud800": {}}}, ["variants.\\ud800: found '\\ud800'", "UTF-8"]),
    "a batch that no memory holds": (
        {"training": {"batch": 10**9}},
        [
            "variant 'separate' and 1 other: training.batch: found 1,000,000,000 examples of up to 4 + 5 tokens",
            "at most 466,033 of them",
        ],
    ),
    "measured on more than memory holds": (
        {"data": {"validation": 10**9}},
        ["data.validation: found 1,000,000,000 examples", "at most 466,033 of them"],
    ),
    "texts longer than memory holds": ({"data": {"length": [1, 10**9]}}, ["training.batch", "shorter ones"]),
    "a vocabulary of a thousand million": ({"base": {"vocabulary": 10**9}}, ["vocabulary: found 1,000,000,000"]),
    "threads without end": ({"training": {"threads": 10**9}}, ["training.threads"]),
    "steps without end": ({"training": {"steps": 10**12}}, ["training.steps"]),
    "a budget without end": ({"budget": {"trials": 10**8}}, ["budget.trials"]),
    "no seeds": ({"seeds": []}, ["seeds: found [], expected at least 1"]),
    "momentum for adamw": (
        {"grid": {"training.optimizer.momentum": [0.0, 0.9]}},
        ["optimizer.momentum", "adamw does not have it"],
    ),
    "betas for sgd": ({"training": {"optimizer": {"name": "sgd", "betas": [0.5, 0.9]}}}, ["optimizer.betas"]),
    "a final rate of a constant one": ({"training": {"schedule": {"name": "constant", "final": 0.5}}}, ["schedule.final"]),
    "no such task": ({"data": {"name": "copi"}}, ["data.name: found 'copi'", "'associative_recall'"]),
    "no task": ({"data": {"name": None}}, ["data.name: found nothing"]),
    "no files to measure on": ({"data": TEXT | {"held_out": None}} | BYTES, ["data.held_out: found nothing"]),
    "a seed twice": ({"seeds": [1, 1]}, ["seeds"]),
    "more trials than the budget": ({"budget": {"trials": 3}}, ["budget.trials", "4 trials"]),
    "no such base": ({"base": {"extends": "t5gemma-s-z"}}, ["t5gemma-s-s"]),
    "a vocabulary too small": ({"data": {"symbols": 40}}, ["vocabulary", "at least 40"]),
    "no such device": ({"training": {"device": "mars"}}, ["training.device", "mars"]),
    "data file missing": ({"data": TEXT | {"train": ["none/*.txt"]}} | BYTES, ["data.train", "none/*.txt"]),
    "data file empty": ({"data": TEXT | {"held_out": ["empty.txt"]}} | BYTES, ["empty.txt", "an empty file"]),
    "only held-out data": ({"data": TEXT | {"train": ["held.txt"]}} | BYTES, ["data.train", "not held out"]),
    "a file that cannot be read": ({"data": TEXT | {"train": ["packed.txt.gz"]}} | BYTES, ["packed.txt.gz", "no gzip"]),
    "no field": ({"data": TEXT | {"train": ["some.jsonl"], "field": "body"}} | BYTES, ["some.jsonl: line 2", "'body'"]),
    "no JSON": ({"data": TEXT | {"train": ["torn.jsonl"]}} | BYTES, ["torn.jsonl: line 3", "no JSON"]),
    "no object": (
        {"data": PAIRS | {"train": ["list.jsonl"]}} | BYTES,
        ["list.jsonl: line 1", "found list, expected one object"],
    ),
    "half of a surrogate pair in a text": (
        {"data": TEXT | {"train": ["surrogate.jsonl"]}} | BYTES,
        ["surrogate.jsonl: line 2", "half of a surrogate pair, '\\ud83d', in the field 'text'"],
    ),
    "JSON nested too deep": ({"data": TEXT | {"train": ["deep.jsonl"]}} | BYTES, ["deep.jsonl: line 1", "no JSON"]),
    "a line too long": ({"data": TEXT | {"train": ["long.jsonl"]}} | BYTES, ["long.jsonl: line 1", "16,777,216 bytes"]),
    "a file that unpacks to a thousand times its size": (
        {"data": TEXT | {"train": ["bomb.txt.gz"]}} | BYTES,
        ["bomb.txt.gz", "unpack to more than 100 times as many"],
    ),
    "lines that unpack to a thousand times their size": (
        {"data": TEXT | {"train": ["bomb.jsonl.gz"]}} | BYTES,
        ["bomb.jsonl.gz", "unpack to more than 100 times as many"],
    ),
    "a named pipe": ({"data": TEXT | {"train": ["pipe.txt"]}} | BYTES, ["pipe.txt: found a named pipe"]),
    "a device": ({"data": TEXT | {"train": ["zero.txt"]}} | BYTES, ["zero: found a character device"]),
    "a tokenizer that is a device": ({"data": TEXT | {"tokenizer": "zero.txt"}} | BYTES, ["zero.txt: a character device"]),
    "no source": ({"data": PAIRS} | BYTES, ["some.jsonl: line 1", "no field 'source'", "'text', 'body'"]),
    "a source without a token": (
        {"data": PAIRS | {"train": ["pairs.jsonl"], "held_out": ["blank.jsonl"]}} | BYTES,
        ["blank.jsonl: line 2", "no token in the field 'source'"],
    ),
    "only held-out pairs": ({"data": PAIRS | {"train": ["pairs.jsonl"]}} | BYTES, ["data.train", "not held out"]),
    "no such tokenizer": ({"data": PAIRS | {"tokenizer": "none.json"}} | BYTES, ["data.tokenizer", "none.json"]),
    "no tokenizer": ({"data": TEXT | {"tokenizer": "held.txt"}} | BYTES, ["data.tokenizer", "held.txt", "a tokenizer.json"]),
    "lengths the wrong way round": ({"data": {"length": [4, 2]}}, ["data.length", "the shortest length, then"]),
    "no ids for bytes": ({"data": TEXT}, ["vocabulary", "at least 256", "data.tokenizer"]),
    "no ids for sentinels": (
        {"data": TEXT | {"objective": {"name": "span_corruption"}}, "base": {"vocabulary": 260}},
        ["vocabulary", "as sentinels"],
    ),
}

LINES = {
    "some.jsonl": ['{"text": "one", "body": "two"}', '{"text": "three"}'],
    "torn.jsonl": ['{"text": "one"}', "", '{"text": "tw'],
    "list.jsonl": ["[1, 2]"],
    "pairs.jsonl": ['{"source": "one", "target": "two"}'],
    "blank.jsonl": ['{"source": "one", "target": "two"}', '{"source": "", "target": "two"}'],
    "packed.txt.gz": ["text"],
    "surrogate.jsonl": ['{"text": "one"}', '{"text": "\\ud83d"}'],
    "deep.jsonl": ["[" * 100_000],
}
BOMB = gzip.compress(b'{"text": ""}\n' * 200_000)


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_study_is_refused(case: str, tmp_path: Path) -> None:
    (tmp_path / "held.txt").write_text("a text " * 40)
    (tmp_path / "train.txt").write_text("another text " * 40)
    (tmp_path / "empty.txt").write_text("")
    for name, lines in LINES.items():
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "zero.txt").symlink_to("/dev/zero")
    with (tmp_path / "long.jsonl").open("wb") as file:
        file.truncate(1 << 25)
    for name in ("bomb.txt.gz", "bomb.jsonl.gz"):
        (tmp_path / name).write_bytes(BOMB)
    patch, words = BROKEN[case]
    with pytest.raises(PairformError) as caught:
        run(tmp_path, patch)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert not words[0].startswith(("data", "some")) or len(caught.value.problems) == 1, "told once, not once a variant"
    assert not (tmp_path / "study").exists()


def test_a_full_disk_is_seen_before_the_first_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    with pytest.raises(PairformError, match="found 100 bytes free on its disk"):
        run(tmp_path)
    assert not (tmp_path / "study").exists()


def test_another_study_in_the_folder_is_left_alone(tmp_path: Path) -> None:
    fresh = {"training": {"steps": 0}, "variants": {"merged": None}, "seeds": [0]}
    run(tmp_path, fresh)
    before = (tmp_path / "study" / "study.json").read_bytes()
    for change in ({"training": {"steps": 1}}, {"data": {"symbols": 9}}, {"seeds": [3]}):
        with pytest.raises(PairformError, match="found trials"):
            run(tmp_path, fresh | change)
    assert (tmp_path / "study" / "study.json").read_bytes() == before


def test_a_run_that_ended_before_its_first_file_was_whole_is_begun_again(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / ".lock").touch()
    (tmp_path / "study" / ".study.json.partial-123").write_text("{")
    (trial,) = run(tmp_path, {"training": {"steps": 0}, "variants": {"merged": None}, "seeds": [0]})
    assert trial.status == "done"
    assert [path.name for path in (tmp_path / "study").glob(".*")] == [".lock"]


@pytest.mark.parametrize("jobs", [0, -1, True, 1.5, "2", None])
def test_jobs_are_a_whole_number(tmp_path: Path, jobs: Any) -> None:
    with pytest.raises(PairformError, match="jobs: found"):
        run(tmp_path, jobs=jobs)


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "thesis.tex").write_text("")
    with pytest.raises(PairformError, match="something that is no study"):
        run(tmp_path)
