"""The loss of a large vocabulary is that of the logits held whole: its value, its gradients, and what it refuses."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import pairform
from pairform.blocks.heads import linear_cross_entropy as chunks
from pairform.blocks.heads.labels import IGNORED
from pairform.blocks.heads.linear_cross_entropy import linear_cross_entropy
from pairform.blocks.heads.loss_terms import LossTerms
from tests.small_pairs import small_pair, tokens

SOFTCAPS = (None, 3.0)
DTYPES = (torch.float64, torch.float32)
ROUNDINGS = 2
"""How many roundings of its terms' sizes a value may be off; 0.66 was the most seen, with AVX2 and without."""


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few tokens a chunk, fewer a tile."""
    monkeypatch.setattr(chunks, "HELD", 1 << 10)
    monkeypatch.setattr(chunks, "TILE", 1 << 6)


def whole(hidden: Tensor, weight: Tensor, labels: Tensor, softcap: float | None) -> Tensor:
    """The same with all logits held at once."""
    logits = functional.linear(hidden, weight)
    if softcap is not None:
        logits = torch.tanh(logits / softcap) * softcap
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return functional.cross_entropy(logits.flatten(0, -2), labels.flatten())


def random_inputs(rows: int, length: int, width: int, vocabulary: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    hidden, weight = (torch.randn(*shape, width).to(dtype).requires_grad_() for shape in ((rows, length), (vocabulary,)))
    return hidden, weight, torch.randint(vocabulary, (rows, length))


def check_equal(hidden: Tensor, weight: Tensor, labels: Tensor, softcap: float | None) -> None:
    """Against the whole in float64, within roundings of the terms that are summed: a sum may cancel, its terms do not.

    A logit is off by a rounding of the sizes of its terms, and a loss or a chance by twice as much of all logits.
    """
    wide = [leaf.detach().double().requires_grad_() for leaf in (hidden, weight)]
    loss, exact = linear_cross_entropy(hidden, weight, labels, softcap), whole(wide[0], wide[1], labels, softcap)
    most_hidden, most_weight = (float(leaf.detach().abs().amax()) for leaf in wide)
    unit = ROUNDINGS * torch.finfo(hidden.dtype).eps * (1 + 2 * hidden.shape[-1] * most_hidden * most_weight)
    torch.testing.assert_close(loss.double(), exact, rtol=0, atol=unit, equal_nan=True)
    count = max(int(labels.ne(IGNORED).sum()), 1)
    for leaf, like, size in ((hidden, wide[0], 2 * most_weight / count), (weight, wide[1], most_hidden)):
        if leaf.requires_grad:
            (got,), (wanted,) = (
                torch.autograd.grad(3 * value, of, retain_graph=True) for value, of in ((loss, leaf), (exact, like))
            )
            assert got.dtype == leaf.dtype
            assert (got - wanted).abs().max() <= 3 * unit * size


sizes = st.integers(1, 9)


@given(sizes, sizes, sizes, st.integers(1, 70), st.sampled_from(SOFTCAPS), st.sampled_from(DTYPES), st.floats(0, 1))
def test_values_and_gradients_are_those_of_the_whole(
    rows: int, length: int, width: int, vocabulary: int, softcap: float | None, dtype: torch.dtype, ignored: float
) -> None:
    hidden, weight, labels = random_inputs(rows, length, width, vocabulary, dtype)
    check_equal(hidden, weight, labels.masked_fill(torch.rand(labels.shape) < ignored, IGNORED), softcap)


@pytest.mark.parametrize("softcap", SOFTCAPS)
def test_in_bfloat16_it_is_as_near_to_float64_as_the_whole(softcap: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nearer where there is a softcap, which is not rounded; in four chunks the weight's gradient is rounded four times."""
    hidden, weight, labels = random_inputs(4, 64, 32, 256, torch.bfloat16)
    monkeypatch.setattr(chunks, "HELD", 64 * 256 * 2)
    leaves = [leaf.detach().double().requires_grad_() for leaf in (hidden, weight)]
    exact = torch.autograd.grad(whole(leaves[0], leaves[1], labels, softcap), leaves)
    errors = [
        [float((got - true).norm() / true.norm()) for got, true in zip(gradients, exact, strict=True)]
        for gradients in (
            torch.autograd.grad(compute(hidden, weight, labels, softcap), (hidden, weight))
            for compute in (linear_cross_entropy, whole)
        )
    ]
    (of_hidden, of_weight), (hidden_whole, weight_whole) = errors
    assert of_hidden <= 1.1 * hidden_whole  # products round in another order on each processor
    assert of_weight <= (1.7 if softcap is None else 1.1) * weight_whole


def test_under_a_loss_scale_a_gradient_in_float16_is_as_near_to_float64_as_the_whole() -> None:
    """Divided by the number of tokens before the scale reaches them, they would underflow."""
    scale = 2.0**16
    hidden, weight, labels = random_inputs(64, 256, 32, 500, torch.float32)
    leaf = hidden.detach().double().requires_grad_()
    (exact,) = torch.autograd.grad(whole(leaf, weight.double(), labels, None), leaf)
    errors = []
    for compute in (linear_cross_entropy, whole):
        with torch.autocast("cpu", torch.float16):
            loss = compute(hidden, weight, labels, None)
        (found,) = torch.autograd.grad(loss * scale, hidden)
        errors.append(float((found / scale - exact).norm() / exact.norm()))
    assert errors[0] <= 1.5 * errors[1]


def test_gradients_in_float16_are_summed_in_float32() -> None:
    """Over many tokens a sum in float16 loses what is added to it."""
    hidden, weight, labels = random_inputs(16, 512, 16, 40, torch.float16)
    leaves = [leaf.detach().double().requires_grad_() for leaf in (hidden, weight)]
    exact = torch.autograd.grad(whole(leaves[0], leaves[1], labels, None), leaves)
    found = torch.autograd.grad(1024 * linear_cross_entropy(hidden, weight, labels), (hidden, weight))
    for got, true in zip(found, exact, strict=True):
        assert (got / 1024 - true).norm() <= 2e-3 * true.norm()


@pytest.mark.parametrize("leaf", [0, 1])
def test_gradients_of_a_kept_graph_add_up(leaf: int) -> None:
    """A gradient handed out is the caller's: autograd makes it the parameter's `.grad` and adds the next one to it in place."""
    inputs = random_inputs(2, 5, 4, 30, torch.float64)
    found = []
    for compute in (linear_cross_entropy, whole):
        inputs[leaf].grad = None
        loss = compute(*inputs, 3.0)
        for _ in range(3):
            torch.autograd.backward(loss, retain_graph=True)
        found.append(inputs[leaf].grad)
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("leaf", [0, 1])
def test_only_what_is_trained_gets_a_gradient(leaf: int) -> None:
    inputs = random_inputs(2, 5, 4, 30, torch.float32)
    inputs[leaf].requires_grad_(False)
    check_equal(*inputs, 3.0)


def test_without_a_label_that_counts_the_loss_is_nan_and_gradients_are_zero() -> None:
    hidden, weight, labels = random_inputs(2, 5, 4, 30, torch.float32)
    loss = linear_cross_entropy(hidden, weight, labels.fill_(IGNORED))
    assert loss.isnan()
    assert not any(gradient.any() for gradient in torch.autograd.grad(loss, (hidden, weight)))


@pytest.mark.parametrize("softcap", SOFTCAPS)
def test_gradients_are_the_slopes(softcap: float | None) -> None:
    hidden, weight, labels = random_inputs(2, 3, 4, 7, torch.float64)
    labels[0, 0] = IGNORED
    assert torch.autograd.gradcheck(
        lambda *leaves: linear_cross_entropy(leaves[0], leaves[1], labels, softcap), (hidden, weight)
    )


def test_autocast_computes_in_its_dtype_as_for_the_whole() -> None:
    hidden, weight, labels = random_inputs(2, 5, 16, 30, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        losses = [compute(hidden, weight, labels, 3.0) for compute in (linear_cross_entropy, whole)]
    torch.testing.assert_close(*losses, rtol=1e-2, atol=0)
    assert losses[0] != linear_cross_entropy(hidden, weight, labels, 3.0)
    assert all(gradient.dtype == torch.float32 for gradient in torch.autograd.grad(losses[0], (hidden, weight)))


def test_functional_gradients() -> None:
    hidden, weight, labels = (tensor.detach() for tensor in random_inputs(2, 5, 4, 30, torch.float32))
    got, wanted = (torch.func.grad(compute)(hidden, weight, labels, 3.0) for compute in (linear_cross_entropy, whole))
    torch.testing.assert_close(got, wanted)


def second_derivative(hidden: Tensor, weight: Tensor, labels: Tensor) -> None:
    (gradient,) = torch.autograd.grad(linear_cross_entropy(hidden, weight, labels), hidden, create_graph=True)
    torch.autograd.backward(gradient.sum() + weight.sum())


def forward_mode(hidden: Tensor, weight: Tensor, labels: Tensor) -> None:
    torch.func.jvp(lambda leaf: linear_cross_entropy(leaf, weight, labels), (hidden,), (hidden,))


def over_rows(hidden: Tensor, weight: Tensor, labels: Tensor) -> None:
    torch.vmap(lambda leaf, label: linear_cross_entropy(leaf, weight, label))(hidden, labels)


def beyond_the_vocabulary(hidden: Tensor, weight: Tensor, labels: Tensor) -> None:
    linear_cross_entropy(hidden, weight, labels + len(weight))


def for_other_tokens(hidden: Tensor, weight: Tensor, labels: Tensor) -> None:
    linear_cross_entropy(hidden, weight, labels[:, 1:])


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (second_derivative, pairform.PairformError, "second derivative"),
        (forward_mode, NotImplementedError, "jvp"),
        (over_rows, RuntimeError, "vmap"),
        (beyond_the_vocabulary, pairform.PairformError, "token ids below 30"),
        (for_other_tokens, pairform.PairformError, "one for each token"),
    ],
)
def test_what_it_cannot_do_is_an_error(
    wrong: Callable[[Tensor, Tensor, Tensor], None], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        wrong(*random_inputs(2, 5, 4, 30, torch.float32))


def test_few_logits_are_held_and_none_of_ignored_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    real = chunks.losses

    def watched(logits: Tensor, *given: Any, **options: Any) -> Tensor:
        sizes.append(logits.numel())
        return real(logits, *given, **options)

    monkeypatch.setattr(chunks, "losses", watched)
    hidden, weight, labels = random_inputs(4, 16, 4, 32, torch.float32)
    linear_cross_entropy(hidden, weight, labels.masked_fill(torch.arange(16) < 4, IGNORED))
    assert sum(sizes) == 4 * 12 * 32
    assert max(sizes) * 4 <= chunks.HELD


@pytest.mark.parametrize("tie", [None, "decoder"])
def test_a_model_computes_logits_beside_its_loss_only_when_they_are_read(tie: str | None) -> None:
    model = pairform.build(small_pair(head={"tie": tie}), seed=0)
    calls: list[object] = []
    model.head.register_forward_hook(lambda *call: calls.append(call))
    source, target = tokens(), tokens(1)
    output = model(source, labels=target)
    assert not calls
    with torch.no_grad():
        logits = output.logits
    assert output.logits is logits
    assert len(calls) == 1
    assert logits is not None
    assert output.loss is not None
    assert logits.requires_grad
    torch.testing.assert_close(output.loss, functional.cross_entropy(logits.flatten(0, 1), target.flatten()))
    torch.testing.assert_close(model(source, labels=target).logits, model(source, labels=target).logits, rtol=0, atol=0)
    gradients = [
        torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
        for loss in (output.loss, functional.cross_entropy(logits.flatten(0, 1), target.flatten()))
    ]
    for got, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-6)


class Allocated(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Records the bytes of every tensor that an operation makes in memory of its own."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.known = {each.untyped_storage().data_ptr() for each in known}
        self.sizes: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        storages = [each.untyped_storage() for each in tree_leaves(made) if isinstance(each, Tensor)]
        self.sizes += [each.nbytes() for each in storages if each.data_ptr() not in self.known]
        return made


@pytest.mark.parametrize("tie", [None, "decoder"])
@pytest.mark.parametrize("bias", ["learned", "fixed"])
def test_a_head_with_a_bias_copies_no_table(tie: str | None, bias: str) -> None:
    model = pairform.build(small_pair(head={"tie": tie, "bias": bias}), seed=0, dtype=torch.float64)
    torch.nn.init.normal_(model.get_parameter("head.bias"))
    source, target = tokens(length=3), tokens(1, length=2)
    with torch.no_grad(), Allocated(model.parameters()) as allocated:
        model(source, labels=target)
    table = model.get_parameter(f"{tie}.embedding.weight" if tie else "head.weight")
    assert max(allocated.sizes) < table.nbytes
    trained = [each for each in model.parameters() if each.requires_grad]
    output = model(source, labels=target, output_logits=True)
    dense = functional.cross_entropy(output.logits.flatten(0, 1), target.flatten())
    for got, wanted in zip(
        *(torch.autograd.grad(loss, trained, retain_graph=True) for loss in (output.loss, dense)), strict=True
    ):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-12)


def test_a_model_with_a_bias_is_its_own_teacher() -> None:
    model = pairform.build(small_pair(head={"bias": "learned"}), seed=0, dtype=torch.float64)
    torch.nn.init.normal_(model.get_parameter("head.bias"))
    source, target = tokens(), tokens(1)
    output: Any = model(source, labels=target)
    head: Any = model.head
    terms = LossTerms(teacher=head.as_teacher(output.prediction, weight=1.0, temperature=2.0))
    loss: Any = model(source, labels=target, loss_terms=terms).loss
    assert loss.item() == pytest.approx(0, abs=1e-12)


def test_logits_that_are_read_later_are_those_of_the_forward_pass() -> None:
    """Gradients and autocast are as they were then."""
    model = pairform.build(small_pair(), seed=0)
    source, target = tokens(), tokens(1)
    with torch.no_grad():
        unattached = model(source, labels=target)
    assert not unattached.logits.requires_grad
    with torch.autocast("cpu", torch.bfloat16):
        lowered, expected = model(source, labels=target), model(source, decoder_input_ids=model.shift_right(target)).logits
    assert torch.equal(lowered.logits, expected)
    assert model(source, decoder_input_ids=target).prediction.logits is not None
