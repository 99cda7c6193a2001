"""A small random model of any family beside transformers': both ways, decoded with a cache, in bfloat16, with gradients.

A family's test gives a function that writes a folder for a seed; `written` makes one of a `Case`. Six seeds are run, or as
many as the environment variable PAIRFORM_SEEDS says.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import transformers
from torch import Tensor

import pairform
from pairform.assemblies.specs.canonical import differences
from tests.parity.compare import PADDINGS, Batch, batch, error, reference, write
from tests.parity.pictures import same_bytes

SEEDS = range(int(os.environ.get("PAIRFORM_SEEDS", "6")))
EQUAL = 1e-5
"""Largest difference in float32, over the largest value, unless transformers itself is further from its float64 results."""
ROUNDING = 4.0
"""How many times transformers' own distance from its float64 results ours may be in float32."""
MEDIAN, LARGEST = 2.0, 16.0
"""The same in bfloat16, of the median token and of all. Models with wide weights amplify the rounding of single tokens: in 24
random ones the ratio of the medians was 0.8 to 1.2, that of the largest 0.6 to 4.9, depending on the processor."""
TOKENS: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
Kind = Literal["encoder", "decoder", "encoder_decoder"]


class Case(NamedTuple):
    """A model of transformers: the prefix of its classes, its configuration, and what follows the prefix in its class."""

    classes: str
    config: dict[str, Any]
    architecture: str


class Figures(NamedTuple):
    """Differences over the largest value: ours from transformers', and transformers' from its own in float64."""

    float32: float
    rounding: float
    bfloat16: float
    bfloat16_rounding: float


def written(folder: Path, case: Case, seed: int) -> Path:
    """A folder of transformers' own writing, with norms and biases that are not the identity."""
    torch.manual_seed(seed)
    config = getattr(transformers, f"{case.classes}Config")(**{"initializer_range": 1.0, **TOKENS, **case.config})
    return write(folder, getattr(transformers, case.classes + case.architecture)(config))


def check_family(
    folder_of: Callable[[Path, int], Path],
    seed: int,
    tmp_path: Path,
    *,
    kind: Kind,
    paddings: Sequence[str | None] = PADDINGS,
    length: int = 14,
    routed: bool = False,
) -> Figures:
    """Everything that holds for a folder of a family, loaded by both libraries.

    paddings: those that the family allows, used in turn.
    length:   of the sequences, more than any window of the configurations.
    routed:   whether tokens choose experts. In bfloat16 a few choose others, so that the median token is compared.
    """
    folder = folder_of(tmp_path / "model", seed)
    read = batch(seed, padding=paddings[seed % len(paddings)], length=length)
    inputs: dict[str, Any] = dict(read.inputs)
    if kind == "encoder_decoder":
        read = batch(seed + 1, length=length)
        inputs |= read.decoder_inputs
    ours, theirs = pairform.load(folder), reference(folder)
    figures = same_outputs(folder, ours, theirs, inputs, read, routed)
    if kind != "encoder" and ours.spec.head.name == "lm":
        same_tokens(ours, theirs, inputs)
    back_and_forth(folder, ours, inputs, tmp_path / "back")
    finite_gradients(ours, inputs, read)
    print(f"{type(theirs).__name__} {seed}: {figures}")
    return figures


@torch.no_grad()
def same_outputs(folder: Path, ours: pairform.Model, theirs: Any, inputs: dict[str, Any], read: Batch, routed: bool) -> Figures:
    """Logits or hidden states by each kernel and in bfloat16, beside transformers'."""
    expected = result(theirs(**inputs))
    real = read.real if expected.shape[:2] == read.ids.shape else None
    exact = result(in_float64(folder)(**inputs))
    rounding = error(expected, exact, real)
    bound = max(EQUAL, ROUNDING * rounding)
    apart = error(result(ours(**inputs)), expected, real)
    assert apart <= bound, (apart, rounding)
    ours.use_kernel("eager")
    assert error(result(ours(**inputs)), expected, real) <= bound
    ours.use_kernel("auto")
    ours_in_half = result(pairform.load(folder, dtype=torch.bfloat16)(**inputs)).float()
    theirs_in_half = result(reference(folder).to(torch.bfloat16)(**inputs)).float()
    half, half_theirs = (median_error(outputs, exact, real) for outputs in (ours_in_half, theirs_in_half))
    if real is not None:  # a classifier of sequences has too few outputs
        assert half <= MEDIAN * half_theirs, (half, half_theirs)
    if not routed:  # another expert is another function
        largest, largest_theirs = (error(outputs, exact, real) for outputs in (ours_in_half, theirs_in_half))
        assert largest <= LARGEST * largest_theirs, (largest, largest_theirs)
    return Figures(apart, rounding, half, half_theirs)


def median_error(ours: Tensor, theirs: Tensor, real: Tensor | None) -> float:
    """As `error`, of the median token."""
    if real is not None:
        ours, theirs = ours[real], theirs[real]
    theirs = theirs.double()
    return float((ours.double() - theirs).abs().amax(-1).median() / theirs.abs().max())


def in_float64(folder: Path) -> Any:
    """transformers' model of a folder. Its kernel for all experts at once has no float64."""
    model = reference(folder).double()
    if model._can_set_experts_implementation():
        model.set_experts_implementation("eager")
    return model


def result(output: Any) -> Tensor:
    """A model's logits, or the hidden states of one without a head."""
    found: Tensor = output.last_hidden_state if getattr(output, "logits", None) is None else output.logits
    return found


@torch.no_grad()
def same_tokens(ours: pairform.Model, theirs: Any, inputs: dict[str, Any]) -> None:
    """Greedy decoding with a cache, beyond the windows, and without one."""
    read = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    if not bool(read["attention_mask"][:, -1].all()):  # transformers goes on after the padding
        read = {name: value[:1] for name, value in read.items()}
    expected = theirs.generate(**read, max_new_tokens=12, do_sample=False)
    for use_cache in (True, False):
        assert torch.equal(ours.generate(**read, max_new_tokens=12, use_cache=use_cache), expected)


@torch.no_grad()
def back_and_forth(folder: Path, ours: pairform.Model, inputs: dict[str, Any], back: Path) -> None:
    """The folder that we write holds the same bytes, loads strictly, and means the same to both libraries."""
    pairform.save(ours, back, format="transformers")
    assert same_bytes(folder, back)
    assert differences(pairform.load_spec(back), ours.spec) == {}
    assert torch.equal(result(reference(back, strict=True)(**inputs)), result(reference(folder)(**inputs)))


def finite_gradients(ours: pairform.Model, inputs: dict[str, Any], read: Batch) -> None:
    """Of every parameter that is trained."""
    ours.train()
    values = result(ours(**inputs))
    torch.autograd.backward((values[read.real] if values.shape[:2] == read.ids.shape else values).float().square().mean())
    for name, parameter in ours.named_parameters():
        if not parameter.requires_grad:
            continue
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
