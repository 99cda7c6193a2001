"""Distillation and z-loss in a run: gradients by hand, and what is recorded, resumed and refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models
from torch import Tensor
from torch.nn import functional

import pairform
from pairform.registry import OutputError, PairformError
from pairform.training.adaptation.run import InterruptedRunError, adapt
from pairform.training.checkpoints.metadata import read_metadata
from pairform.training.distillation import DistillationSpec, Terms
from pairform.training.parallel import ALONE as ONE_PROCESS
from pairform.training.step import Computation, gradients
from tests.adaptation.small_run import RECIPE, lines, terminate_in, write_run
from tests.batches.memory import ALONE, SEPARATE, batches, examples, mixed, objective
from tests.forked import pairform_in_two

WIDER: dict[str, Any] = {"decoder": {"width": 48}, "head": {"softcap": 5.0}}
TEACHERS = {"encoder_decoder": pairform.patch(SEPARATE, WIDER), "decoder_only": pairform.patch(ALONE, WIDER)}
SMALL_GEMMA = {
    "vocabulary": 300,
    "decoder": {
        "width": 48,
        "depth": 1,
        "cycle": [{}],
        "layer": {"branches": {"self_attention": {"heads": 2, "kv_heads": 1, "head_dim": 16}, "feed_forward": {"hidden": 64}}},
    },
}


def predicted(teacher: pairform.Model, source: list[int], target: list[int]) -> Tensor:
    """A teacher's logits at the tokens of a target, `[length, vocabulary]`."""
    labels = torch.tensor([target])
    if teacher.encoder is not None:
        logits = teacher(torch.tensor([source]), decoder_input_ids=teacher.shift_right(labels)).logits
        return logits[0]
    bos = teacher.spec.tokens.bos
    assert bos is not None
    logits = teacher(torch.tensor([[bos, *source, *target]])).logits
    return logits[0, len(source) : -1]


@pytest.mark.parametrize("kind", TEACHERS)
def test_gradients_are_those_of_whole_logits_of_texts_alone(kind: str) -> None:
    """Of packed rows in several micro-batches, with softcaps, a temperature and z-loss, in float64."""
    model, teacher = (
        pairform.build(spec, seed=seed, dtype=torch.float64) for seed, spec in enumerate((SEPARATE, TEACHERS[kind]))
    )
    teacher.requires_grad_(False)
    of = objective("prefix_lm", source=24, target=24)
    batch = batches(SEPARATE, of, mixed(20_000, 15.0), batch=4 * 48, micro=2).batch(0)
    assert batch.examples > 2 * len(batch.micro) > 2
    settings = DistillationSpec(teacher="in memory", weight=0.3, temperature=2.0)
    terms = Terms(torch.device("cpu"), 0.01, settings, teacher)
    measured = gradients(model.train(), model.parameters(), batch, Computation(terms=terms.of), ONE_PROCESS)
    found = {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}
    model.zero_grad()
    parts = torch.zeros(3, dtype=torch.float64)
    for source, target in examples(batch):
        logits = model(torch.tensor([source]), labels=torch.tensor([target])).logits[0]
        theirs = predicted(teacher, source, target)
        ours = (logits / 2).log_softmax(-1)
        distilled = functional.kl_div(ours, (theirs / 2).log_softmax(-1), log_target=True, reduction="sum") * 4
        own = functional.cross_entropy(logits, torch.tensor(target), reduction="sum")
        squares = 0.01 * torch.logsumexp(logits, -1).square().sum()
        each = torch.stack([own, squares, distilled]) / batch.labels
        torch.autograd.backward(0.7 * each[0] + each[1] + 0.3 * each[2])
        parts += each.detach()
    for got, wanted in zip((measured.loss, measured.extra["z_loss"], measured.extra["distillation_loss"]), parts, strict=True):
        assert float(got) == pytest.approx(float(wanted), rel=1e-6)  # the sum over processes is in float32
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert (found[name] - parameter.grad).norm() <= 1e-9 * parameter.grad.norm() + 1e-12, name


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, and with teachers."""
    folder = tmp_path_factory.mktemp("room")
    write_run(folder)
    own = pairform.load_spec(folder / "spec.json")
    encoder = {"assembly": "encoder_only", "decoder": None, "tie_embeddings": False, "head": {"name": "lm", "tie": "encoder"}}
    gemma = pairform.patch(pairform.load_spec("gemma-2-2b"), SMALL_GEMMA)
    specs: dict[str, tuple[pairform.ModelSpec, int]] = {
        "itself": (own, 1),
        "text": (gemma, 5),
        "encoder": (pairform.patch(own, encoder), 5),
        "vocabulary": (pairform.patch(gemma, {"vocabulary": 301}), 5),
        "ends": (pairform.patch(gemma, {"tokens": {"eos": 7}}), 5),
        "words": (gemma, 5),
    }
    for name, (spec, seed) in specs.items():
        pairform.save(pairform.build(spec, seed=seed), folder / name)
    for name, word in (("itself", "a"), ("words", "b")):
        Tokenizer(models.WordLevel({word: 0}, word)).save(str(folder / name / "tokenizer.json"))
    (folder / "empty").mkdir()
    (folder / "empty" / "spec.json").write_text(json.dumps(own.document()))
    return folder


def recipe(room: Path, teacher: str | None, patch: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    found = json.loads((room / "recipe.json").read_text())
    if teacher is not None:
        found["distillation"] = {"teacher": str(room / teacher), **settings}
    return found | {"steps": 4} | (patch or {})


def run(room: Path, out: Path, *asked: Any, **settings: Any) -> list[dict[str, Any]]:
    return lines(adapt(recipe(room, *asked, **settings), out, source=room))


def test_a_teacher_that_is_the_model_teaches_nothing_and_the_loss_stays_the_cross_entropy(room: Path, tmp_path: Path) -> None:
    first, second, *_ = run(room, tmp_path / "taught", "itself", weight=1.0, temperature=2.0)
    plain, *_ = run(room, tmp_path / "plain", None)
    assert first["loss"] == plain["loss"]
    assert abs(first["distillation_loss"]) < 1e-6
    assert first["gradient_norm"] < 1e-4 * plain["gradient_norm"]
    assert second["loss"] == pytest.approx(first["loss"], rel=0.1)
    assert "distillation_loss" not in plain
    assert "z_loss" not in first


def test_a_run_resumes_to_the_same_numbers_and_keeps_its_teacher(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = "text", {"z_loss": 0.001, "precision": "mixed", "checkpoint": {"every": 2}}
    whole = run(room, tmp_path / "whole", *asked)
    assert all(line["z_loss"] > 0 and line["distillation_loss"] > 0 for line in whole)
    terminate_in(1, monkeypatch)
    with pytest.raises(InterruptedRunError):
        run(room, tmp_path / "run", *asked)
    monkeypatch.undo()
    weights = room / "text" / "model.safetensors"
    kept = weights.read_bytes()
    pairform.save(pairform.build(room / "text", seed=6), room / "other")
    weights.write_bytes((room / "other" / "model.safetensors").read_bytes())
    with pytest.raises(OutputError, match="a teacher of other weights"):
        run(room, tmp_path / "run", *asked)
    weights.write_bytes(kept)
    with pytest.raises(OutputError, match="another recipe: distillation"):
        run(room, tmp_path / "run", *asked, weight=0.6)
    assert run(room, tmp_path / "run", *asked) == whole
    stored = read_metadata(tmp_path / "run" / "checkpoints" / "step-4").state_dict_metadata
    names = {f"model.{name}" for name, _ in pairform.build(room / "spec.json", device="meta").named_parameters()}
    assert {name for name in stored if not name.startswith("optimizer.")} == names


def test_two_processes_give_the_numbers_of_one(room: Path, tmp_path: Path) -> None:
    document = recipe(room, "text", {"z_loss": 0.001, "steps": 3, "device": "cpu"}, weight=0.7, temperature=1.5)
    (room / "two.json").write_text(json.dumps(document))
    alone = lines(adapt(document, tmp_path / "alone", source=room))
    pairform_in_two("adapt", "run", room / "two.json", "--out", tmp_path / "run", said=tmp_path / "said")
    for one, two in zip(alone, lines(tmp_path / "run"), strict=True):
        for name in ("loss", "z_loss", "distillation_loss", "gradient_norm"):
            assert two[name] == pytest.approx(one[name], rel=1e-5), name


BROKEN: dict[str, tuple[str, dict[str, Any], dict[str, Any], str]] = {
    "no such teacher": ("nowhere", {}, {}, r"distillation.teacher.*no such folder"),
    "a teacher without weights": ("empty", {}, {}, r"distillation.teacher.*"),
    "an encoder": ("encoder", {}, {}, r"distillation.teacher: .*encoder_only.*encoder_decoder or decoder_only"),
    "another vocabulary": ("vocabulary", {}, {}, r"distillation.teacher: .*a vocabulary of 301"),
    "another end": ("ends", {}, {}, r"distillation.teacher: .*1 among them, with which targets end"),
    "another objective": (
        "text",
        {"data": RECIPE["data"] | {"objective": {"name": "ul2", "window": 16}}},
        {},
        r"distillation: .*the objective ul2.*prefix_lm",
    ),
    "another tokenizer": ("words", {"model": "itself"}, {}, r"distillation.teacher: .*tokenizer.*'a' is no token"),
    "a model with one stack": ("text", {"model": "text"}, {}, r"distillation: .*decoder_only.*an encoder-decoder to teach"),
    "no temperature": ("text", {}, {"temperature": 0.0}, "temperature"),
    "a heavy teacher": ("text", {}, {"weight": 2}, "weight"),
    "a negative z-loss": ("text", {"z_loss": -1.0}, {}, "z_loss"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_teacher_that_does_not_fit_is_refused_before_anything_is_written(room: Path, tmp_path: Path, case: str) -> None:
    teacher, patch, settings, said = BROKEN[case]
    if patch.get("model") in ("itself", "text"):
        patch = patch | {"model": str(room / patch["model"])}
    with pytest.raises(PairformError, match=f"(?s){said}"):
        run(room, tmp_path / "run", teacher, patch, **settings)
    assert not (tmp_path / "run").exists()
