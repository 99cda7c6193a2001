"""The same folder run by pairform and by transformers, and how far apart their numbers are."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

import pairform
from pairform.assemblies.families import nearest_family
from tests.checkpoints import SMALL, randomise_norms
from tests.made_once import made_once

FLOAT32 = 1e-4
"""Largest difference of float32 logits over the largest logit."""
PADDINGS = (None, "left", "right")
BIASES = 0.3
"""Spread of the biases in written folders; transformers starts them at zero, which would hide that one is lost."""
STACK = SMALL | {"num_hidden_layers": 2}
"""A local and a full layer."""


@dataclass(frozen=True)
class Batch:
    """Token ids and which of them are real, `[batch, length]` both."""

    ids: Tensor
    mask: Tensor

    @property
    def real(self) -> Tensor:
        return self.mask.bool()

    @property
    def inputs(self) -> dict[str, Any]:
        """As an encoder or a decoder-only model takes them."""
        return {"input_ids": self.ids, "attention_mask": self.mask}

    @property
    def decoder_inputs(self) -> dict[str, Any]:
        """As a decoder beside an encoder takes them."""
        return {"decoder_input_ids": self.ids, "decoder_attention_mask": self.mask}


def batch(seed: int = 0, *, rows: int = 3, length: int = 14, padding: str | None = None, vocabulary: int = 96) -> Batch:
    """Random tokens, none of them special; with `padding` every row but the first is shorter."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, vocabulary, (rows, length), generator=generator)
    mask = torch.ones_like(ids)
    if padding is not None:
        for row in range(1, rows):
            count = length // 3 + row
            mask[row, slice(0, count) if padding == "left" else slice(length - count, length)] = 0
    return Batch(ids * mask, mask)


def write(folder: Path, model: nn.Module, *, dtype: torch.dtype = torch.float32, shard: str = "5GB") -> Path:
    """Save a transformers model after its norms and biases were moved from where transformers starts them."""
    randomise_norms(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=BIASES)
    saved: Any = model.to(dtype)
    saved.save_pretrained(folder, max_shard_size=shard)
    return folder


@made_once
def create(
    folder: Path, /, architecture: str, *, seed: int = 0, dtype: torch.dtype = torch.float32, shard: str = "5GB", **config: Any
) -> Path:
    """A folder of the transformers class `architecture`; for T5Gemma, `encoder` and `decoder` replace fields of `STACK`."""
    torch.manual_seed(seed)
    if architecture.startswith("T5Gemma"):
        parts = {part: {**STACK, **config.pop(part, {})} for part in ("encoder", "decoder")}
        made = transformers.T5GemmaConfig(**parts, **config)
    else:
        made = transformers.Gemma2Config(**{**STACK, **config})
    return write(folder, getattr(transformers, architecture)(made), dtype=dtype, shard=shard)


def reference(folder: Path, *, trained_window: bool = True, strict: bool = False) -> Any:
    """transformers' model of a folder; with `strict` the folder must hold each of its weights and no others.

    The windows of its T5Gemma encoders reach one token further than those that the weights were trained with; `trained_window`
    takes that token off.
    """
    (architecture,) = json.loads((folder / "config.json").read_text())["architectures"]
    model, found = getattr(transformers, architecture).from_pretrained(folder, output_loading_info=True)
    assert not (strict and any(found.values())), found
    config = getattr(model.config, "encoder", model.config)
    if trained_window and config is not model.config:
        config.sliding_window -= 1
    return model


def inclusive_windows(spec: pairform.ModelSpec) -> dict[str, Any]:
    """A patch that widens the encoder's windows by a token to each side, as transformers reads them."""
    cycle = spec.document()["encoder"]["cycle"]
    for turn in cycle:
        for branch in turn.get("branches", {}).values():
            branch["mask"]["window"] = [reach + 1 for reach in branch["mask"]["window"]]
    return {"encoder": {"cycle": cycle}}


def error(ours: Tensor | None, theirs: Tensor, real: Tensor | None = None) -> float:
    """The largest difference over the largest value, at real positions of `[batch, length, ...]`."""
    assert ours is not None
    assert ours.shape == theirs.shape
    if real is not None:
        ours, theirs = ours[real], theirs[real]
    assert ours.isfinite().all()
    ours, theirs = ours.detach().double(), theirs.detach().double()
    return float((ours - theirs).abs().max() / theirs.abs().max())


def parameters(ours: pairform.Model, theirs: nn.Module) -> Iterator[tuple[str, nn.Parameter, nn.Parameter]]:
    """Every parameter of ours beside the same one of theirs; each of theirs comes exactly once."""
    family = nearest_family(ours.spec)
    known = {family.ours(name): parameter for name, parameter in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        yield name, parameter, known.pop(name)
    assert not known


def random_stack(rng: random.Random) -> dict[str, Any]:
    """One stack's configuration: MHA, GQA or MQA, any window, pattern of layers, position scaling and bounds of scores."""
    heads = rng.choice([1, 2, 4, 6])
    depth = rng.randint(1, 4)
    theta = rng.choice([100.0, 10000.0])
    linear = {"rope_type": "linear", "rope_theta": theta, "factor": rng.choice([2.0, 8.0])}
    kinds = ["sliding_attention", "full_attention"]
    return {
        "vocab_size": 96,
        "hidden_size": heads * rng.choice([4, 6, 8]),
        "intermediate_size": rng.choice([8, 24, 40]),
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "num_key_value_heads": rng.choice([count for count in range(1, heads + 1) if heads % count == 0]),
        "head_dim": rng.choice([2, 4, 8, 16]),
        "query_pre_attn_scalar": rng.choice([2, 7, 12, 64]),
        "sliding_window": rng.randint(1, 9),
        "layer_types": rng.choice([None, [kinds[0]] * depth, [kinds[1]] * depth, [rng.choice(kinds) for _ in range(depth)]]),
        "rope_parameters": rng.choice([{"rope_type": "default", "rope_theta": theta}, linear]),
        "hidden_activation": rng.choice(["gelu_pytorch_tanh", "gelu_pytorch_tanh", "gelu", "silu"]),
        "rms_norm_eps": rng.choice([1e-6, 1e-3]),
        "attention_bias": rng.random() < 0.4,
        "attn_logit_softcapping": rng.choice([None, 2.0, 50.0]),
        "final_logit_softcapping": rng.choice([None, 10.0, 30.0]),
        "initializer_range": 1.0,
    }


def random_gemma2(seed: int) -> dict[str, Any]:
    rng = random.Random(seed)
    return {**random_stack(rng), "tie_word_embeddings": rng.random() < 0.6}


def random_t5gemma(seed: int) -> dict[str, Any]:
    """Balanced (one configuration for both stacks) every third time, else unequal in everything."""
    rng = random.Random(seed)
    encoder, decoder = random_stack(rng), random_stack(rng)
    return {
        "encoder": decoder if seed % 3 == 0 else encoder | {"vocab_size": rng.choice([80, 96])},
        "decoder": decoder,
        "tie_word_embeddings": rng.random() < 0.6,
    }


def check_logits(ours: pairform.Model, theirs: nn.Module, read: Batch) -> Tensor:
    """Whether the chosen kernel and the eager one give transformers' logits, which are returned."""
    expected: Tensor = theirs(**read.inputs).logits
    assert error(ours(**read.inputs).logits, expected, read.real) <= FLOAT32
    ours.use_kernel("eager")
    assert error(ours(**read.inputs).logits, expected, read.real) <= FLOAT32
    return expected
