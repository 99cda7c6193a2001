"""Random architectures of Gemma 3 and T5Gemma 2, and what they read: text, and pictures among it."""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.models.gemma3 import modeling_gemma3
from transformers.models.t5gemma2 import modeling_t5gemma2

import pairform
from tests.checkpoints import PICTURES, VISION
from tests.parity.compare import Batch, batch, error, random_stack

IMAGE, END = PICTURES["image_token_index"], PICTURES["eoi_token_index"]
WORSE = 2.0
"""In half precision our error against float32 may be so many times that of transformers, as in test_precision.py."""


@dataclass(frozen=True)
class Pictured(Batch):
    """Tokens with pictures among them, `pixels [pictures, 3, side, side]`."""

    pixels: Tensor

    @property
    def inputs(self) -> dict[str, Any]:
        return {**super().inputs, "pixel_values": self.pixels}

    @property
    def theirs(self) -> dict[str, Any]:
        """As transformers' Gemma 3 takes them."""
        return {**self.inputs, "token_type_ids": (self.ids == IMAGE).long()}


def text(seed: int = 0, **options: Any) -> Batch:
    """Random tokens, none of them an image token, with an end of image in each row."""
    plain = batch(seed, **options)
    ids = plain.ids.masked_fill(plain.ids == IMAGE, IMAGE + 1)
    for row, real in enumerate(plain.real):
        ids[row, int(real.nonzero()[0]) + 2] = END
    return Batch(ids, plain.mask)


def pictured(seed: int = 0, *, tokens: int = 4, side: int = 16, length: int = 26, **options: Any) -> Pictured:
    """A picture in each row, and a second one in the first, which has no padding."""
    plain = text(seed, length=length, **options)
    ids = plain.ids.clone()
    for row, real in enumerate(plain.real):
        begin = int(real.nonzero()[0]) + 1 + row
        for _ in range(2 if row == 0 else 1):
            ids[row, begin : begin + tokens] = IMAGE
            ids[row, begin + tokens] = END
            begin += tokens + 2
    generator = torch.Generator().manual_seed(seed)
    return Pictured(ids, plain.mask, torch.randn(int((ids == IMAGE).sum()) // tokens, 3, side, side, generator=generator))


def real_positions(read: Batch) -> Tensor:
    """Positions from each row's first real token on. transformers counts padding too, and merged attention notices."""
    return (read.mask.cumsum(1) - 1).clamp(min=0)


def reference(folder: Path, **options: Any) -> Any:
    """transformers' model of a folder."""
    (architecture,) = json.loads((folder / "config.json").read_text())["architectures"]
    module = modeling_gemma3 if architecture.startswith("Gemma3") else modeling_t5gemma2
    model, report = getattr(module, architecture).from_pretrained(folder, output_loading_info=True, **options)
    assert not any(report.values())
    return model


def random_text(rng: random.Random) -> dict[str, Any]:
    """One stack."""
    stack = random_stack(rng)
    kinds = ["sliding_attention", "full_attention"]
    linear: dict[str, Any] = {"rope_type": "linear", "factor": rng.choice([2.0, 8.0])}
    return stack | {
        "rope_parameters": {
            kind: {"rope_theta": rng.choice([100.0, 1e4, 1e6]), **rng.choice([linear, {"rope_type": "default"}])}
            for kind in kinds
        },
        "attn_logit_softcapping": None,
    }


def random_vision(rng: random.Random) -> tuple[dict[str, Any], int, int]:
    """A tower, the tokens that a picture becomes, and the picture's side in pixels."""
    heads, patch, side = rng.choice([1, 2, 3]), rng.choice([2, 4]), rng.choice([2, 4, 6])
    kept = rng.choice([count for count in (1, 2, 3) if side % count == 0])
    tower = VISION | {
        "hidden_size": heads * rng.choice([4, 6]),
        "intermediate_size": rng.choice([8, 20]),
        "num_hidden_layers": rng.randint(1, 3),
        "num_attention_heads": heads,
        "image_size": side * patch,
        "patch_size": patch,
        "hidden_act": rng.choice(["gelu_pytorch_tanh", "gelu"]),
        "layer_norm_eps": rng.choice([1e-6, 1e-3]),
    }
    return tower, kept**2, side * patch


def in_half_precision(folder: Path, ours: dict[str, Any], theirs: dict[str, Any], real: Tensor) -> tuple[Tensor, bool]:
    """In bfloat16, how far from transformers' float32 are `[kernel, (ours, theirs)]`, by the fused kernel and by the eager one;
    and whether the fused one gives transformers' bits."""
    far, same = [], False
    with torch.no_grad():
        exact = reference(folder, dtype=torch.bfloat16).float()(**theirs).logits
        for kernel in ("sdpa", "eager"):
            expected = reference(folder, dtype=torch.bfloat16, attn_implementation=kernel)(**theirs).logits
            got = pairform.load(folder, dtype=torch.bfloat16, kernel=kernel)(**ours).logits
            assert got is not None
            assert got.dtype == torch.bfloat16
            same = same or torch.equal(got[real], expected[real])
            far.append([error(got, exact, real), error(expected, exact, real)])
    return torch.tensor(far), same


def check_half_precision(found: list[tuple[Tensor, bool]]) -> None:
    """Over several models: we lose at most WORSE times what transformers loses, and mostly exactly that."""
    lost = torch.stack([far for far, _ in found]).mean(0)
    assert (lost[:, 0] <= WORSE * lost[:, 1]).all()
    assert sum(same for _, same in found) >= 0.75 * len(found)


def same_bytes(one: Path, two: Path) -> bool:
    """Whether two folders hold the same weights in the same files, header and all."""
    names = sorted(path.name for path in one.glob("*.safetensors"))
    return names == sorted(path.name for path in two.glob("*.safetensors")) and all(
        (one / name).read_bytes() == (two / name).read_bytes() for name in names
    )
