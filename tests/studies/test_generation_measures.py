"""Exact match of generated text, and loss on sources that are longer than those of training."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import pairform
from pairform.assemblies.specs.generation import GenerationSpec
from pairform.experiments.evaluation.gathering import measure
from pairform.experiments.evaluation.generation import OpenedGeneration
from pairform.experiments.execution.run import run_study
from pairform.experiments.execution.trial import train
from pairform.experiments.results.records import result_of
from pairform.experiments.study.planning import plan_trials, read_study
from pairform.registry import PairformError
from tests.studies.by_hand import kept_settings, validated
from tests.studies.measuring import BYTES, measured, opened, text_study, write_lines
from tests.studies.small_study import write_study

COPY: dict[str, Any] = {
    "base": {"vocabulary": 8, "encoder": {"width": 32}, "decoder": {"width": 32}},
    "variants": {"merged": None},
    "training": {"steps": 150, "batch": 16, "optimizer": {"learning_rate": 0.01}, "evaluate_every": None},
    "data": {"symbols": 4, "length": [2, 2], "validation": 24},
    "measures": [{"name": "generation"}, {"name": "length_extrapolation"}],
    "seeds": [0],
}


def trained_to(folder: Path, steps: int) -> dict[str, Any]:
    """The result of the only trial."""
    study, contents = opened(write_study(folder, COPY | {"training": COPY["training"] | {"steps": steps}}))
    (trial,) = plan_trials(study, folder, contents)
    spec = pairform.load_spec(dict(trial.spec))
    with kept_settings():
        run = measure(contents.measures, spec, trial.training)
        return train(trial, contents.open(spec), False, lambda line: None, measure=run)


def test_a_model_that_has_learnt_to_copy_generates_the_targets(tmp_path: Path) -> None:
    found = trained_to(tmp_path, 150)
    assert found["generation.exact_match"] == found["exact_match"] == 1


def test_half_trained_greedy_decoding_reproduces_what_validation_says_it_would(tmp_path: Path) -> None:
    found = trained_to(tmp_path, 25)
    assert found["generation.exact_match"] == found["exact_match"]
    assert 0 < found["exact_match"] < 1


def test_longer_sources_are_those_of_the_task_at_that_length(tmp_path: Path) -> None:
    """All of them exactly as long, so that none is as short as in training; against a loop over single examples."""
    _, contents = opened(write_study(tmp_path, COPY))
    model, found = measured(write_study(tmp_path, COPY))
    lengths = contents.measures[1].gathered.open(model.spec)
    for factor in (2, 4):
        examples: Any = getattr(lengths, "examples")[factor]  # noqa: B009
        assert {len(source) for source, _ in examples} == {2 * factor}
        expected = validated(model, examples)
        for name in ("loss", "accuracy"):
            assert found[f"length_extrapolation.{name}_{factor}x"] == pytest.approx(expected[name], rel=1e-5)


TEXT = {"name": "text", "train": ["*.txt"], "held_out": ["held.txt"]}
OBJECTIVES: dict[str, dict[str, Any]] = {
    "prefix": {"name": "prefix_lm", "source": 6, "target": 4},
    "uniform": {"name": "prefix_lm", "source": 6, "target": 4, "split": "uniform"},
    "spans": {"name": "span_corruption", "window": 20, "denoisers": [{"span": 2.0, "rate": 0.2}]},
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_longer_windows_of_text(name: str, tmp_path: Path) -> None:
    for split in ("train", "held"):
        (tmp_path / f"{split}.txt").write_text("abcdefghij" * 20)
    data = TEXT | {"objective": OBJECTIVES[name], "validation": 5}
    file = text_study(tmp_path, [{"name": "length_extrapolation", "factors": [3], "examples": 7}], {"data": data})
    _, contents = opened(file)
    spec = pairform.load_spec({"extends": "t5gemma-s-s", "vocabulary": BYTES})
    lengths = contents.measures[0].gathered.open(spec)
    examples: Any = getattr(lengths, "examples")[3]  # noqa: B009
    assert len(examples) == 7
    if name == "prefix":
        assert {(len(source), len(target)) for source, target in examples} == {(18, 4)}
    elif name == "uniform":
        assert {len(source) + len(target) for source, target in examples} == {30}
    else:
        whole = contents.open(spec).validation()
        assert min(len(source) for source, _ in examples) > 2 * max(len(source) for source, _ in whole)
    assert len(contents.open(spec).validation()) == 5, "validation stays as it is"
    measured(file)


EQUAL: list[tuple[list[int], list[int], bool]] = [
    ([5, 6, 1], [5, 6, 1], True),
    ([5, 6, 1, 0, 0], [5, 6, 1], True),
    ([5, 6, 7], [5, 6, 1], False),
    ([5, 6], [5, 6, 1], False),
    ([5, 1, 6], [5, 6, 1], False),
    ([5, 6, 7], [5, 6], True),
    ([5, 1, 0], [5, 6], False),
    ([1], [1], True),
]
"""What is generated, a target (1 is the end token), and whether they are equal: a target without an end is a window's."""


@pytest.mark.parametrize(("made", "target", "equal"), EQUAL)
def test_texts_are_compared_up_to_the_end_token(made: list[int], target: list[int], equal: bool) -> None:
    spec = pairform.load_spec("t5gemma-s-s")
    assert spec.tokens.ends == (1,)
    assert OpenedGeneration([], (1, 1), None).same(made, target, spec) is equal


def test_a_file_of_sources_and_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a model that answers with the source: two of four targets are."""
    rows = [{"question": word, "reply": reply} for word, reply in (("ab", "ab"), ("b", "b"), ("aab", "aa"), ("b", "bb"))]
    write_lines(tmp_path / "q.jsonl", rows)
    measures = [{"name": "generation", "label": "qa", "file": "q.jsonl", "source": "question", "target": "reply"}]

    def generate(model: pairform.Model, ids: torch.Tensor, mask: torch.Tensor, *, max_new_tokens: int) -> torch.Tensor:
        assert max_new_tokens == 3, "the longest target and its end token"
        ended = torch.cat((ids, torch.zeros(len(ids), 1, dtype=torch.long)), 1)
        ended[torch.arange(len(ids)), mask.sum(1)] = 1
        return torch.cat((torch.full((len(ids), 1), 2), ended), 1)

    monkeypatch.setattr(pairform.Model, "generate", generate)
    assert measured(text_study(tmp_path, measures))[1] == {"qa.exact_match": 0.5}


def test_a_checkpoints_own_settings_of_generation_do_not_count(tmp_path: Path) -> None:
    file = write_study(tmp_path, COPY)
    model, found = measured(file)
    own = GenerationSpec(do_sample=True, temperature=9.0, max_new_tokens=1)
    model.generation = own
    assert measured(file, model)[1] == found
    assert model.generation is own


REFUSED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "learned positions": (
        {"variants": {"one": {"encoder": {"position": {"name": "learned", "length": 7}}}}},
        ["variant 'one': measures[1]", "found the position 7"],
    ),
    "too few keys": ({"data": {"name": "associative_recall", "keys": 3, "values": 2, "pairs": 2}}, ["measures[1].data.pairs"]),
    "a factor twice": ({"measures": [{"name": "length_extrapolation", "factors": [2, 2]}]}, ["measures[0].factors"]),
    "two of a name": ({"measures": [{"name": "generation"}] * 2}, ["measures[1].label", "found 'generation' for 2 measures"]),
    "a file of texts": ({"measures": [{"name": "generation", "file": "a"}]}, ["measures[0].file", "synthetic task"]),
    "no validation before the end": ({"measures": [{"name": "time_to_loss"}]}, ["measures[0]", "training.evaluate_every"]),
    "an unknown measure": ({"comparison": {"measures": ["generation.accuracy"]}}, ["comparison.measures[0]"]),
    "a margin of an unknown one": ({"comparison": {"margins": {"choices.accuracy": 0.1}}}, ["comparison.margins"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_measured_is_refused_before_the_first_trial(case: str, tmp_path: Path) -> None:
    change, words = REFUSED[case]
    file = write_study(tmp_path, COPY)
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(PairformError) as caught:
        measured(file)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_lengths_of_pairs_are_those_of_their_files(tmp_path: Path) -> None:
    with pytest.raises(PairformError, match=r"measures\[0\]: found length_extrapolation on pairs"):
        measured(text_study(tmp_path, [{"name": "length_extrapolation"}]))


def test_measures_depend_on_neither_jobs_nor_other_trials(tmp_path: Path) -> None:
    """Of trials in processes of their own; those of one variant are also the same without the other."""
    write_lines(tmp_path / "q.jsonl", [{"source": word, "choices": ["a", "b"], "answer": 0} for word in ("ab", "b", "bab")])
    write_lines(tmp_path / "p.jsonl", [{"source": word, "label": len(word) % 2} for word in ("ab", "b", "bab", "bbbb", "a")])
    measures: list[dict[str, Any]] = [
        {"name": "choices", "file": "q.jsonl"},
        {"name": "linear_probe", "train": "p.jsonl", "test": "p.jsonl"},
        {"name": "generation"},
    ]
    found = []
    for jobs, variants in ((2, {"one": {}, "two": {"decoder": {"depth": 2}}}), (1, {"one": {}})):
        file = text_study(tmp_path, measures, {"variants": variants, "training": {"steps": 2}})
        out = tmp_path / f"jobs{jobs}"
        run_study(read_study(file), out, source=tmp_path, jobs=jobs)
        found.append({name: value for name, value in result_of(out, "one-seed0").items() if "." in name})
    assert found[0] == found[1]
    assert len(found[0]) == 7
