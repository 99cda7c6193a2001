"""z-loss and distillation in the fused loss: the values and gradients of whole logits, through the model and compiled."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import pairform
from pairform.blocks.heads import linear_cross_entropy as chunks
from pairform.blocks.heads.labels import IGNORED
from pairform.blocks.heads.loss_terms import LossParts, LossTerms, Teacher
from pairform.blocks.heads.prediction import Prediction
from tests.small_pairs import small_pair, tokens

VOCABULARY, WIDTH, WIDER = 40, 8, 11


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few tokens a chunk, fewer a tile."""
    monkeypatch.setattr(chunks, "HELD", 1 << 11)
    monkeypatch.setattr(chunks, "TILE", 1 << 6)


def capped(hidden: Tensor, table: Tensor, softcap: float | None, bias: Tensor | None = None) -> Tensor:
    logits = functional.linear(hidden, table, bias)
    return logits if softcap is None else torch.tanh(logits / softcap) * softcap


def whole(
    hidden: Tensor, table: Tensor, labels: Tensor, softcap: float | None, terms: LossTerms, bias: Tensor | None = None
) -> tuple[Tensor, ...]:
    """The loss and its parts from logits held at once, in the formulas of the papers."""
    counted = labels != IGNORED
    logits, wanted = capped(hidden, table, softcap, bias)[counted], labels[counted]
    cross_entropy = functional.cross_entropy(logits, wanted)
    z_loss = terms.z_loss * torch.logsumexp(logits, -1).square().mean()
    if (teacher := terms.teacher) is None:
        return cross_entropy + z_loss, cross_entropy, z_loss, torch.zeros(())
    theirs = capped(teacher.hidden, teacher.table, teacher.softcap, teacher.bias)[counted]
    theirs = theirs.to(logits.dtype) / teacher.temperature
    ours = (logits / teacher.temperature).log_softmax(-1)
    distilled = functional.kl_div(ours, theirs.log_softmax(-1), log_target=True, reduction="batchmean")
    distilled = distilled * teacher.temperature**2
    return (1 - teacher.weight) * cross_entropy + z_loss + teacher.weight * distilled, cross_entropy, z_loss, distilled


def random_bias(seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(seed)).to(dtype)


def inputs(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    hidden, table = torch.randn(3, 9, WIDTH).to(dtype), torch.randn(VOCABULARY, WIDTH).to(dtype)
    labels = torch.randint(VOCABULARY, (3, 9)).masked_fill(torch.arange(9) > 2 + 3 * torch.arange(3)[:, None], IGNORED)
    return hidden.requires_grad_(), table.requires_grad_(), labels


def teacher(dtype: torch.dtype = torch.float64, **settings: Any) -> Teacher:
    torch.manual_seed(1)
    return Teacher(torch.randn(3, 9, WIDER).to(dtype), torch.randn(VOCABULARY, WIDER).to(dtype), **settings)


def as_double(terms: LossTerms) -> LossTerms:
    """The same with a teacher in float64."""
    if (own := terms.teacher) is None:
        return terms
    bias = None if own.bias is None else own.bias.double()
    return replace(terms, teacher=replace(own, hidden=own.hidden.double(), table=own.table.double(), bias=bias))


TERMS: dict[str, tuple[float | None, float, dict[str, Any] | None]] = {
    "z-loss": (None, 0.1, None),
    "z-loss with a softcap": (3.0, 0.1, None),
    "teacher": (None, 0.0, {}),
    "teacher alone": (3.0, 0.0, {"weight": 1.0, "softcap": 2.0}),
    "warm teacher": (3.0, 0.0, {"weight": 0.3, "temperature": 2.5}),
    "cold teacher and z-loss": (2.0, 0.05, {"weight": 0.7, "temperature": 0.5, "softcap": 4.0}),
}


@pytest.mark.parametrize("name", TERMS)
def test_values_and_gradients_are_those_of_the_whole(name: str) -> None:
    """In float64, and within 1e-5 in float32."""
    softcap, z_loss, settings = TERMS[name]
    for dtype, bound in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        terms = LossTerms(z_loss, None if settings is None else teacher(dtype, **settings))
        hidden, table, labels = inputs(dtype)
        loss, parts = chunks.linear_losses(hidden, table, labels, softcap, None, terms)
        wide = [leaf.detach().double().requires_grad_() for leaf in (hidden, table)]
        expected, *of_parts = whole(wide[0], wide[1], labels, softcap, as_double(terms))
        for got, wanted in zip((loss, *(parts or ())), (expected, *of_parts), strict=True):
            assert abs(got.item() - wanted.item()) <= bound * max(1, abs(wanted.item()))
        gradients = (torch.autograd.grad(3 * loss, (hidden, table)), torch.autograd.grad(3 * expected, wide))
        for one, other in zip(*gradients, strict=True):
            assert (one - other).norm() <= bound * other.norm()


@pytest.mark.parametrize("name", TERMS)
def test_a_bias_of_the_model_and_one_of_the_teacher_are_part_of_the_logits(name: str) -> None:
    softcap, z_loss, settings = TERMS[name]
    terms = LossTerms(z_loss, None if settings is None else teacher(**settings, bias=random_bias(2)))
    leaves = *inputs(), random_bias(3).requires_grad_()
    hidden, table, labels, bias = leaves
    loss, parts = chunks.linear_losses(hidden, table, labels, softcap, None, terms, bias)
    expected, *of_parts = whole(hidden, table, labels, softcap, terms, bias)
    for got, wanted in zip((loss, *(parts or ())), (expected, *of_parts), strict=True):
        assert got.item() == pytest.approx(wanted.item(), rel=1e-12, abs=1e-12)
    gradients = (torch.autograd.grad(3 * each, (hidden, table, bias)) for each in (loss, expected))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_in_bfloat16_the_terms_are_those_of_the_same_logits() -> None:
    """Where the softcap is a sigmoid without its constant, which the z-loss must not lack."""
    hidden, table, labels = (tensor.detach() for tensor in inputs(torch.bfloat16))
    terms = LossTerms(0.1, teacher(torch.bfloat16, softcap=2.0, temperature=2.0))
    _, parts = chunks.linear_losses(hidden, table, labels, 3.0, None, terms)
    _, *expected = whole(hidden.double(), table.double(), labels, 3.0, as_double(terms))
    for got, wanted in zip(parts or (), expected, strict=True):
        assert float(got) == pytest.approx(float(wanted), rel=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_a_teacher_that_is_the_model_teaches_nothing(dtype: torch.dtype, temperature: float) -> None:
    hidden, table, labels = inputs(dtype)
    itself = LossTerms(0.0, Teacher(hidden.detach(), table.detach(), 3.0, 1.0, temperature))
    loss, parts = chunks.linear_losses(hidden, table, labels, 3.0, None, itself)
    assert parts is not None
    assert loss == parts.distillation_loss == 0
    assert not any(gradient.any() for gradient in torch.autograd.grad(loss, (hidden, table)))


def test_few_logits_are_held_of_both_models(monkeypatch: pytest.MonkeyPatch) -> None:
    held = []
    real = chunks.losses

    def watched(logits: Tensor, *given: Any, **options: Any) -> Tensor:
        held.append((logits.nbytes, given[-1].nbytes))
        return real(logits, *given, **options)

    monkeypatch.setattr(chunks, "losses", watched)
    hidden, table, labels = inputs()
    chunks.linear_losses(hidden, table, labels, None, None, LossTerms(teacher=teacher()))
    assert len(held) > 1
    assert max(map(sum, held)) <= chunks.HELD
    assert sum(ours for ours, _ in held) == int((labels != IGNORED).sum()) * VOCABULARY * 8


@pytest.mark.parametrize("softcap", [None, 3.0])
def test_tokens_that_are_masked_count_as_those_that_are_left_out(softcap: float | None) -> None:
    """As on a GPU, where leaving them out would synchronise."""
    hidden, table, labels = (tensor.detach() for tensor in inputs())
    terms = LossTerms(0.1, teacher(temperature=2.0, softcap=4.0))
    assert terms.teacher is not None
    logits, theirs = (hidden @ table.T).flatten(0, 1), (terms.teacher.hidden @ terms.teacher.table.T).flatten(0, 1)
    flat = labels.flatten()
    kept = flat != IGNORED
    some = logits[kept]
    expected = chunks.losses(some, flat[kept], None, softcap, terms.factors, theirs[kept], gradients=True)
    found = chunks.losses(logits, flat, ~kept, softcap, terms.factors, theirs, gradients=True)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(logits[kept], some)
    assert not logits[~kept].any()


def test_a_second_pass_over_a_kept_graph_gives_the_same_gradient() -> None:
    hidden, table, labels = inputs()
    loss, _ = chunks.linear_losses(hidden, table, labels, 3.0, None, LossTerms(0.1, teacher(temperature=2.0)))
    first = torch.autograd.grad(loss, (hidden, table), retain_graph=True)
    for one, other in zip(first, torch.autograd.grad(loss, (hidden, table)), strict=True):
        torch.testing.assert_close(one, other)


def model_and_teacher(**settings: Any) -> tuple[pairform.Model, Tensor, Tensor, Teacher]:
    """A pair, its inputs, and a wider pair's prediction of the same labels."""
    model, other = pairform.build(small_pair(), seed=0), pairform.build(small_pair(decoder={"width": 48}), seed=0)
    source, labels = tokens(rows=4), tokens(1, rows=4, length=9)
    labels = labels.masked_fill(torch.arange(9) > 2 * torch.arange(4)[:, None], IGNORED)
    with torch.no_grad():
        output = other(source, decoder_input_ids=other.shift_right(labels), output_logits=False)
    assert isinstance(output.prediction, Prediction)
    assert output.prediction.made is None, "logits were computed"
    return model, source, labels, other.head.as_teacher(output.prediction, **settings)  # type: ignore[operator, unused-ignore]


def gradients(model: Any, batches: list[dict[str, Any]]) -> tuple[dict[str, Tensor], list[LossParts]]:
    model.zero_grad()
    parts = []
    for batch in batches:
        output = model(**batch)
        output.loss.backward()
        parts.append(output.loss_parts)
    found = {name.removeprefix("_orig_mod."): each.grad for name, each in model.named_parameters() if each.grad is not None}
    return found, parts


def test_parts_of_a_batch_add_up_and_compiled_code_computes_the_same() -> None:
    model, source, labels, theirs = model_and_teacher(weight=0.4, temperature=2.0)
    model.train()
    whole_batch = {"input_ids": source, "labels": labels, "loss_terms": LossTerms(0.01, theirs)}
    expected, (total,) = gradients(model, [whole_batch])
    count = int((labels != IGNORED).sum())
    batches = [
        {
            "input_ids": source[rows],
            "labels": labels[rows],
            "loss_tokens": count,
            "loss_terms": LossTerms(0.01, replace(theirs, hidden=theirs.hidden[rows])),
        }
        for rows in ([0, 3], [1, 2])
    ]
    found, parts = gradients(model, batches)
    torch.testing.assert_close(torch.tensor(parts).sum(0), torch.tensor(total))
    compiled: Any = torch.compile(model, backend="eager", fullgraph=True)
    for each in (found, gradients(compiled, [whole_batch])[0]):
        for name, gradient in expected.items():
            torch.testing.assert_close(each[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_what_is_no_term_is_refused() -> None:
    model, source, labels, theirs = model_and_teacher(weight=0.4, temperature=2.0)
    wrong: dict[str, tuple[Any, str]] = {
        "something else": (0.1, "LossTerms"),
        "below zero": (LossTerms(-1.0), "0 or more"),
        "a heavy teacher": (LossTerms(teacher=replace(theirs, weight=1.5)), "from 0 to 1"),
        "no temperature": (LossTerms(teacher=replace(theirs, temperature=0.0)), "above 0"),
        "other tokens": (LossTerms(teacher=replace(theirs, hidden=theirs.hidden[:2])), "teacher.hidden"),
        "another vocabulary": (LossTerms(teacher=replace(theirs, table=theirs.table[:50])), "vocabulary"),
        "a bias of another": (LossTerms(teacher=replace(theirs, bias=theirs.table[:50, 0])), "teacher.bias"),
    }
    for terms, said in wrong.values():
        with pytest.raises(pairform.PairformError, match=said):
            model(source, labels=labels, loss_terms=terms)
    with pytest.raises(pairform.PairformError, match="labels beside them"):
        model(source, decoder_input_ids=labels.clamp(min=0), loss_terms=LossTerms(0.1))
