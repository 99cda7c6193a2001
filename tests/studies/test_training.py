"""How a trial is trained and validated, against the same done by hand."""

import functools
import time
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import pairform
from pairform.experiments.evaluation.computing import forward
from pairform.experiments.execution import trial as training
from pairform.experiments.execution.trial import train
from pairform.experiments.study.steps import update
from pairform.training import loop
from pairform.training.costs.trials import costs
from pairform.training.loop import Clock
from pairform.training.optimization.optimizers import make_optimizer
from pairform.training.optimization.schedule import rate
from pairform.training.settings import ScheduleSpec, TrainingSpec
from tests.studies.by_hand import kept_settings, planned, schedule, trained, trained_by_hand
from tests.studies.small_study import STUDY

DATA = {"symbols": 3, "length": [1, 3], "validation": 13}
DROPOUT = {stack: {"layer": {"dropout": 0.4}} for stack in ("encoder", "decoder")}
ALONE = {
    "assembly": "decoder_only",
    "encoder": None,
    "tie_embeddings": False,
    "head": {"tie": "decoder"},
    "decoder": {"layer": {"branches": {"cross_attention": None}}},
}
Case = tuple[dict[str, Any], dict[str, Any], Any]
CASES: dict[str, Case] = {
    "adamw, clipped, cosine, dropout": (
        DROPOUT,
        {
            "optimizer": {"learning_rate": 0.02, "betas": [0.5, 0.6], "weight_decay": 3.0},
            "schedule": {"name": "cosine", "warmup": 2, "final": 0.3},
            "clip": 0.05,
        },
        functools.partial(torch.optim.AdamW, lr=0.02, betas=(0.5, 0.6), weight_decay=3.0),
    ),
    "sgd, linear, a decoder alone": (
        ALONE,
        {
            "optimizer": {"name": "sgd", "learning_rate": 0.5, "momentum": 0.7, "weight_decay": 0.2},
            "schedule": {"name": "linear", "warmup": 1, "final": 0.0},
        },
        functools.partial(torch.optim.SGD, lr=0.5, momentum=0.7, weight_decay=0.2),
    ),
    "until some targets are written": (
        {},
        {"optimizer": {"learning_rate": 0.03}, "schedule": {"name": "constant"}, "steps": 24, "evaluate_every": None},
        functools.partial(torch.optim.AdamW, lr=0.03, betas=(0.9, 0.95), weight_decay=0.0),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_trial_is_trained_and_validated_as_by_hand(case: str, tmp_path: Path) -> None:
    """Batches of uneven lengths, a number of examples that the batch does not divide, and a seed that is not the first."""
    change, settings, make = CASES[case]
    steps = {"steps": 5, "batch": 5, "log_every": 1, "evaluate_every": 2}
    patch = {"base": {"initializer_range": 0.5}, "training": steps | settings, "data": DATA, "seeds": [5]}
    trial, examples = planned(tmp_path, patch, change)
    assert trial.seed == 5
    found, result = trained(trial, examples)
    expected = trained_by_hand(trial, examples, make, trial.training.clip, trial.training)
    assert [line.keys() - {"seconds"} for line in found] == [line.keys() for line in expected]
    for line, by_hand in zip(found, expected, strict=True):
        assert line["split"] == by_hand.pop("split")
        assert {name: line[name] for name in by_hand} == pytest.approx(by_hand, rel=1e-3), line["step"]
    assert {name: result[name] for name in ("loss", "accuracy", "exact_match")} == pytest.approx(
        {name: expected[-1][name] for name in ("loss", "accuracy", "exact_match")}, rel=1e-3
    )
    assert result["tokens_per_second"] == pytest.approx(expected[-1]["tokens"] / found[-1]["seconds"])
    if case == "until some targets are written":
        assert 0 < result["exact_match"] < result["accuracy"] < 1
    if trial.training.clip is not None:
        assert min(line["gradient_norm"] for line in found if line["split"] == "train") > 2 * trial.training.clip


def test_a_trial_computes_in_its_dtype(tmp_path: Path) -> None:
    """Its first loss is that of the fresh model under autocast, which float32's is not."""
    settings = {"steps": 1, "log_every": 1, "evaluate_every": None, "dtype": "bfloat16"}
    trial, examples = planned(tmp_path, {"base": {"initializer_range": 0.5}, "training": settings})
    lines, _ = trained(trial, examples)
    model = pairform.build(dict(trial.spec), seed=trial.seed).train()
    batch = examples.train(trial.seed, 0, trial.training.batch)
    exact = forward(model, batch, TrainingSpec())["loss"].item()
    with torch.autocast("cpu", torch.bfloat16):
        loss = forward(model, batch, TrainingSpec())["loss"].item()
    assert lines[0]["loss"] == loss != exact


def test_a_trial_sets_torchs_threads_and_says_where_it_is_not_deterministic(tmp_path: Path) -> None:
    """An operation that has no deterministic kernel warns and goes on."""
    trial, examples = planned(tmp_path, {"training": {"steps": 0, "threads": 2}})
    seen: list[tuple[int, bool, bool]] = []

    def log(_: object) -> None:
        modes = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
        seen.append((torch.get_num_threads(), *modes))

    with kept_settings():
        train(trial, examples, False, log)
    assert seen == [(2, True, True)]


def test_a_result_holds_costs_peak_and_latency_in_the_trials_dtype(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial, examples = planned(tmp_path, {"training": {"steps": 0, "dtype": "bfloat16"}})
    seen: list[tuple[Any, ...]] = []

    def writing_seconds(model: object, source: list[int], lengths: tuple[int, int]) -> float:
        seen.append((torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None, source, lengths))
        return 0.5

    monkeypatch.setattr(training, "writing_seconds", writing_seconds)
    for before, peak, expected in ((100, 700, 600), (700, 100, 0), (None, 700, None), (100, None, None)):
        monkeypatch.setattr(training, "memory_in_use", lambda _, value=before: value)
        monkeypatch.setattr(training, "peak_memory", lambda _, value=peak: value)
        began = time.perf_counter()
        _, result = trained(trial, examples, latency=True)
        assert 0 < result["seconds"] < time.perf_counter() - began
        assert result["peak_bytes"] == expected
    assert costs(pairform.load_spec(dict(trial.spec)), examples.lengths, "bfloat16").items() <= result.items()
    assert (result["latency"], result["tokens_per_second"]) == (0.5, None), "no step, so no tokens"
    source, (read, written) = examples.validation()[0][0], examples.lengths
    assert seen == [(torch.bfloat16, source, (read, written)), (torch.bfloat16, source, (read, 1))] * 4
    assert "latency" not in trained(trial, examples)[1]


def test_lines_are_logged_at_their_steps_and_at_the_last(tmp_path: Path) -> None:
    settings = {"steps": 5, "log_every": 3, "evaluate_every": 4}
    found, _ = trained(*planned(tmp_path, {"training": settings}))
    assert [(line["step"], line["split"]) for line in found] == [(3, "train"), (4, "valid"), (5, "train"), (5, "valid")]


@pytest.mark.parametrize("name", ["constant", "linear", "cosine"])
@pytest.mark.parametrize(("warmup", "steps"), [(0, 7), (1, 7), (4, 9)])
def test_learning_rates_are_torchs(name: Any, warmup: int, steps: int) -> None:
    spec = ScheduleSpec(name=name, warmup=warmup) if name == "constant" else ScheduleSpec(name=name, warmup=warmup, final=0.2)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 3.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's SequentialLR calls what it deprecates
        rates = schedule(optimizer, spec, steps)
        for step in range(steps):
            assert 3.0 * rate(spec, step, steps) == pytest.approx(optimizer.param_groups[0]["lr"]), step
            optimizer.step()
            rates.step()


def test_time_and_tokens_of_validation_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([2.0, 5.0, 100.0, 104.0])
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: next(times)))
    clock = Clock(since=0.0)
    for _ in range(2):
        clock.start()
        clock.stop()
    assert clock.seconds == (5.0 - 2.0) + (104.0 - 100.0)


def test_gradients_whose_norm_overflows_are_left_as_they_are_without_clip() -> None:
    model = pairform.build(STUDY["base"], seed=0).train()
    settings = TrainingSpec()
    first: Any = next(model.parameters())
    first.register_hook(lambda gradient: torch.full_like(gradient, 1e20))
    _, norm = update(model, [([5, 6], [7, 1])], make_optimizer(model, settings.optimizer), settings)
    assert norm.isinf()
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_what_a_mixture_adds_to_the_loss_is_trained_on_and_told_apart(tmp_path: Path) -> None:
    """The loss of a step is the one that the same weights have in validation, and the router learns from what is added."""
    experts = {"name": "mixture", "experts": 4, "balance": 2.0, "expert": {"name": "gated", "hidden": 8}}
    variant = {"decoder": {"layer": {"branches": {"feed_forward": experts}}}}
    settings = {"steps": 1, "log_every": 1, "evaluate_every": None}
    trial, examples = planned(tmp_path, {"training": settings}, variant)
    (line, _), _ = trained(trial, examples)
    model = pairform.build(dict(trial.spec), seed=trial.seed)
    batch = examples.train(trial.seed, 0, trial.training.batch)
    with torch.no_grad():
        plain = forward(model, batch, trial.training)["loss"].item()
    assert line["loss"] == pytest.approx(plain, abs=1e-5)
    whole = forward(model.train(), batch, trial.training)["output"]
    assert line["auxiliary_loss"] == pytest.approx(whole.auxiliary_loss.item())
    assert line["auxiliary_loss"] > 1.9
    whole.loss.backward()
    norm = sum(parameter.grad.square().sum() for parameter in model.parameters() if parameter.grad is not None) ** 0.5
    assert line["gradient_norm"] == pytest.approx(float(norm), rel=1e-4)
