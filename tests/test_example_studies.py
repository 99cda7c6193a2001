"""The studies in examples/: what they compare, and their own measures."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import pairform
from examples.adaptation.measures import Texts
from examples.adaptation.texts import LABELS, labels_of
from examples.causal_then_masked import spans
from examples.causal_then_masked.page import sentences, table
from examples.causal_then_masked.run import SHARES, STEPS, WARM_UP, Arm
from pairform.experiments.study.contents import gather
from pairform.experiments.study.planning import plan_trials, read_study
from pairform.training.adaptation.recipe import Recipe
from pairform.training.optimization.schedule import rate

EXAMPLES = Path(__file__).parents[1] / "examples"
LARGE = EXAMPLES / "adaptation" / "large.json"
ENCODER = EXAMPLES / "causal_then_masked" / "encoder.json"


def test_variants_of_table_1_start_with_all_their_weights_from_one_language_model(tmp_path: Path) -> None:
    pairform.save(pairform.build(LARGE, seed=0), tmp_path / "models" / "large")
    for name in ("table1/train.jsonl.gz", "table1/held_out.jsonl.gz", "table1_adapted/adapted.json"):
        shutil.copy(EXAMPLES / name, tmp_path)
    study = read_study(tmp_path / "adapted.json")
    trials = plan_trials(study, tmp_path, gather(study, tmp_path))
    assert len(trials) == 12 * len(study.variants)
    table1 = json.loads((EXAMPLES / "table1" / "study.json").read_text())["variants"]
    own = json.loads((EXAMPLES / "table1_adapted" / "adapted.json").read_text())["variants"]
    control = own.pop("source not read")
    assert own == table1
    carried = {trial.variant: trial.carried for trial in trials}
    new = {variant: kept.new_parameters for variant, kept in carried.items() if kept is not None}
    cross = 4 * 128 * 128  # the output projections of four layers
    assert new == dict.fromkeys(own, 0) | {"source not read": cross}
    assert control["training"]["frozen"] == ["encoder.*", "*cross_attention*"]


@pytest.mark.parametrize("share", SHARES)
def test_arms_have_equal_tokens_and_the_same_rate_outside_of_warm_up(share: int) -> None:
    """The rates of both stages in a row, against those of masked language modelling alone."""
    whole, arm = Arm(10, 0, quick=False), Arm(share, 0, quick=False)
    alone, last = (Recipe.read(each.recipe()) for each in (whole, arm))
    assert (last.batch, last.optimizer, last.seed) == (alone.batch, alone.optimizer, alone.seed)
    assert arm.causal_steps + last.total_steps == alone.total_steps == STEPS
    found = [rate(last.schedule, step, last.total_steps) for step in range(WARM_UP, last.total_steps)]
    wanted = [rate(alone.schedule, step, STEPS) for step in range(arm.causal_steps + WARM_UP, STEPS)]
    if share > 1:  # the last tenth comes after the warm-up
        assert found == pytest.approx(wanted)
    else:
        assert found[0] == 1
        assert found[-1] == pytest.approx(wanted[-1], abs=0.05)


def test_a_language_model_becomes_an_encoder_with_all_its_weights(tmp_path: Path) -> None:
    model = pairform.build(LARGE, seed=0)
    pairform.save(model, tmp_path / "model")
    plan = pairform.plan(encoder=tmp_path / "model", spec=ENCODER)
    assert plan.totals["copied"]["tensors"] == len(list(model.parameters()))
    assert not plan.totals["fresh"]["tensors"]
    assert plan.spec.encoder is not None
    masks = [layer.branches["self_attention"].document()["mask"] for layer in plan.spec.encoder.layers]
    assert [mask["causal"] for mask in masks] == [False] * 4


def test_a_question_is_about_a_label_that_occurs_once() -> None:
    text = "x = 1\nfor name in run(x):\n    pass  # done\n"
    labels = torch.tensor([labels_of(text)])
    source = torch.tensor([[ord(each) for each in text]])
    asked = spans.ask(Texts(source, source, labels))
    label, (begin, end) = int(asked.tokens[0, 0]) - spans.FIRST_QUESTION, asked.spans[0].tolist()
    found = {LABELS[each]: text[first : last + 1] for each, first, last in spans.single_runs(labels[0].tolist())}
    assert found == {"number": "1", "call": "run", "comment": "# done"}
    assert text[begin - 1 : end] == found[LABELS[label]]


def test_the_span_task_finds_answers_that_a_model_can_learn() -> None:
    small = {"encoder": {"width": 32, "depth": 2}}
    encoder = pairform.build(pairform.load_spec(ENCODER, small), seed=0)
    before = [parameter.clone() for parameter in encoder.parameters()]
    numbers = torch.Generator().manual_seed(0)
    tokens = torch.randint(10, 20, (200, 16), generator=numbers)
    places = torch.randint(1, 15, (200,), generator=numbers)
    tokens[torch.arange(200), places] = 5
    questions = spans.Questions(tokens, torch.stack((places, places + 1), 1))
    assert spans.exact_match(encoder, questions, questions, seed=0, steps=0) < 0.2
    assert spans.exact_match(encoder, questions, questions, seed=0, steps=100) > 0.9
    assert all(torch.equal(old, parameter) for old, parameter in zip(before, encoder.parameters(), strict=True))


def test_the_page_compares_shares_seed_by_seed() -> None:
    values = {1.0: [2.0, 2.1, 2.2], 0.5: [1.9, 2.0, 2.1], 0.1: [2.0, 2.3, 2.1]}
    results: list[dict[str, Any]] = [
        {"share": share, "seed": seed, "masked loss": value, "linear probe": 0.5, "span task": 0.25}
        for share, each in values.items()
        for seed, value in enumerate(each)
    ]
    assert list(table(results))[2:] == [
        "| 100% | 2.100 ± 0.248 | 0.500 ± 0.000 | 0.250 ± 0.000 |",
        "| 50% | 2.000 ± 0.248 | 0.500 ± 0.000 | 0.250 ± 0.000 |",
        "| 10% | 2.133 ± 0.379 | 0.500 ± 0.000 | 0.250 ± 0.000 |",
    ]
    said = list(sentences(results))
    assert said[0].startswith("- 50% masked: masked loss lower by 0.1000")
    assert "no difference in masked loss found" in said[1]
    assert said[2] == "- 50% masked: no difference in linear probe with any seed."
