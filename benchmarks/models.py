"""The models in the benchmarks: shapes of T5Gemma B-B or T5Gemma 2, random weights, one folder that both libraries load."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

import pairform
from pairform.assemblies.modeling.build import distributions
from pairform.assemblies.specs.model import ModelSpec
from pairform.blocks.functional.initializers import Constant

WINDOW = 256
VOCABULARY = 32000
TINY = {"width": 96, "depth": 2, "layer": {"branches": {"feed_forward": {"hidden": 128}}}}
INCLUSIVE = {"encoder": {"cycle": [{"branches": {"self_attention": {"mask": {"window": [WINDOW, WINDOW]}}}}, {}]}}
"""transformers' encoder windows extend one token further than those T5Gemma was trained with; this patch does the same."""


def t5gemma(vocabulary: int, *, quick: bool = False) -> ModelSpec:
    """T5Gemma B-B with sliding windows of 256 tokens and the given vocabulary."""
    windows = {"cycle": [{"branches": {"self_attention": {"mask": {"window": [WINDOW - 1, WINDOW - 1]}}}}, {}]}
    patch: dict[str, Any] = {"vocabulary": vocabulary, "encoder": windows, "decoder": windows}
    if quick:
        patch |= dict.fromkeys(("encoder", "decoder"), windows | TINY)
    return pairform.patch(pairform.load_spec("t5gemma-b-b"), patch)


def published(case: Mapping[str, Any], vocabulary: int = VOCABULARY) -> ModelSpec:
    """The model of a case: the preset that it names with its own windows and vocabulary, or T5Gemma B-B as above."""
    return pairform.load_spec(case["preset"]) if "preset" in case else t5gemma(vocabulary, quick=case["source"] < 128)


def patch_for(case: Mapping[str, Any]) -> dict[str, Any] | None:
    """The patch with which our model of a case computes what transformers does. The sources of presets are shorter than their
    windows."""
    return None if "preset" in case else INCLUSIVE


def shapes(case: Mapping[str, Any]) -> str:
    return "T5Gemma " + case.get("preset", "t5gemma-b-b").removeprefix("t5gemma-").upper()


def name(kind: str, case: Mapping[str, Any], lengths: Sequence[str] = ("source",)) -> str:
    """The name of a case's result."""
    return "-".join([kind, *(str(case[key]) for key in ("preset", *lengths, "batch", "dtype") if key in case)])


def random(spec: ModelSpec, device: str, dtype: torch.dtype) -> Any:
    """A model with random weights, the same each time on one kind of device. On a GPU they are drawn there: to draw billions of
    weights on a CPU takes minutes."""
    if device == "cpu":
        return pairform.build(spec, dtype=dtype, seed=0)
    model = pairform.build(spec, device="meta", dtype=dtype).to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for _, parameter, initial in distributions(model):
            if isinstance(initial, Constant):
                parameter.fill_(initial.value)
            else:
                parameter.normal_(0, initial.std, generator=generator)
    return model


def write(spec: ModelSpec, folder: Path, dtype: str, device: str = "cpu") -> None:
    """Write a folder in the transformers format, with the same weights each time."""
    pairform.save(random(spec, device, getattr(torch, dtype)), folder, format="transformers")


def ours(
    folder: Path,
    device: str,
    patch: dict[str, Any] | None = INCLUSIVE,
    *,
    prepack: bool = False,
    compiled: bool = False,
) -> Any:
    """Load our model; `compiled` compiles it layer by layer."""
    model = pairform.load(folder, device=device, patch=patch, prepack=prepack).eval()
    if compiled:
        model.compile_layers()
    return model


def theirs(folder: Path, device: str, attention: str | None = None) -> Any:
    """Load transformers' model; without `attention`, with its default implementation."""
    kind = transformers.AutoConfig.from_pretrained(folder).architectures[0]
    given = {} if attention is None else {"attn_implementation": attention}
    return getattr(transformers, kind).from_pretrained(folder, dtype="auto", **given).to(device).eval()


def endless(model: Any) -> Any:
    """transformers' model without an end-of-sequence token: random weights may end anywhere."""
    model.generation_config.eos_token_id = None
    return model


def shortfall(logits: Tensor, taken: Tensor) -> float:
    """How far the logits of the tokens `taken` are below the largest logits, relative to the largest of all."""
    logits = logits.float()
    found = logits.gather(-1, taken[..., None])[..., 0]
    return float((logits.max(-1).values - found).max() / logits.abs().max())


def tokens(batch: int, length: int, device: str, seed: int, vocabulary: int = VOCABULARY) -> Tensor:
    """Random token IDs, `[batch, length]`, without the special tokens at both ends of the vocabulary."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, vocabulary - 3, (batch, length), generator=generator).to(device)


def inputs(case: dict[str, Any], device: str) -> dict[str, Tensor]:
    """Inputs of both models: a source without padding and a target."""
    read = tokens(case["batch"], case["source"], device, 0)
    written = tokens(case["batch"], case["target"], device, 1)  # of a larger vocabulary, the first ones
    return {"input_ids": read, "attention_mask": torch.ones_like(read), "decoder_input_ids": written}
