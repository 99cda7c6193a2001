"""Positions against transformers' functions and the papers' formulas."""

from typing import Any

import pytest
import torch
import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

import pairform
from pairform.blocks.context import Context
from pairform.blocks.positions import RotaryPosition
from pairform.registry import Sizes

HEAD_DIM, ORIGINAL = 32, 16
SCALINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "linear": ({"factor": 4.0}, {"factor": 4.0}),
    "dynamic": ({"factor": 4.0, "original_length": ORIGINAL}, {"factor": 4.0}),
    "yarn": (
        {"factor": 4.0, "original_length": 512},
        {"factor": 4.0, "original_max_position_embeddings": 512},
    ),
    "yarn, all set": (
        {"factor": 4.0, "original_length": 512, "beta_fast": 8.0, "beta_slow": 2.0, "attention": 1.5},
        {"factor": 4.0, "original_max_position_embeddings": 512, "beta_fast": 8, "beta_slow": 2, "attention_factor": 1.5},
    ),
    "yarn, not truncated": (
        {"factor": 4.0, "original_length": 512, "truncate": False},
        {"factor": 4.0, "original_max_position_embeddings": 512, "truncate": False},
    ),
    "llama3": (
        {"factor": 8.0, "original_length": 512, "low_frequency": 1.0, "high_frequency": 4.0},
        {"factor": 8.0, "original_max_position_embeddings": 512, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    ),
    "proportional": ({"fraction": 0.25, "factor": 2.0}, {"partial_rotary_factor": 0.25, "factor": 2.0}),
}


def turned(spec: dict[str, Any], heads: torch.Tensor) -> torch.Tensor:
    """`heads` `[batch, heads, length, head_dim]` with a rope's rotation at places 0, 1, ..."""
    rope = RotaryPosition(RotaryPosition.Spec.read(spec), Sizes(heads.shape[-1]))
    return rope(heads, Context(torch.arange(heads.shape[2])[None]))


def rotation(heads: torch.Tensor, frequencies: torch.Tensor, factor: float) -> torch.Tensor:
    """The same by complex numbers."""
    first, second = heads.double().chunk(2, -1)
    angles = torch.outer(torch.arange(heads.shape[2]).double(), frequencies.double())
    pairs = torch.complex(first, second) * torch.polar(torch.full_like(angles, factor), angles)
    return torch.cat((pairs.real, pairs.imag), -1).float()


@pytest.mark.parametrize("case", SCALINGS)
@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_scalings_are_those_of_transformers(case: str, fraction: float) -> None:
    name = case.split(",")[0]
    ours, theirs = SCALINGS[case]
    if name == "proportional":
        fraction = 1.0
    parameters = {"rope_type": name, "rope_theta": 500.0, "partial_rotary_factor": fraction} | theirs
    config = transformers.LlamaConfig(
        hidden_size=4 * HEAD_DIM, num_attention_heads=4, max_position_embeddings=ORIGINAL, rope_parameters=parameters
    )
    length = 40
    frequencies, factor = ROPE_INIT_FUNCTIONS[name](config, torch.device("cpu"), seq_len=length)
    spec = {"theta": 500.0, "fraction": fraction, "scaling": {"name": name} | ours}
    heads = torch.randn(2, 3, length, HEAD_DIM, generator=torch.Generator().manual_seed(0))
    channels = 2 * len(frequencies)
    expected = torch.cat((rotation(heads[..., :channels], frequencies, factor), heads[..., channels:]), -1)
    torch.testing.assert_close(turned(spec, heads), expected, rtol=1e-5, atol=2e-5)
    plain = turned({"theta": 500.0, "fraction": fraction}, heads)
    assert not torch.allclose(plain, expected, atol=1e-2), "the scaling changes something"


def test_dynamic_scaling_is_each_rows_own_and_none_within_the_original_length() -> None:
    spec = {"scaling": {"name": "dynamic", "factor": 4.0, "original_length": 8}}
    rope = RotaryPosition(RotaryPosition.Spec.read(spec), Sizes(8))
    heads = torch.randn(2, 1, 6, 8)
    positions = torch.stack((torch.arange(6), torch.arange(6) + 20))
    both = rope(heads, Context(positions))
    torch.testing.assert_close(both[1:], rope(heads[1:], Context(positions[1:])))
    torch.testing.assert_close(both[:1], turned({}, heads[:1]))


@pytest.mark.parametrize(
    ("position", "words"),
    [
        ({"fraction": 0.4}, "0.4 of a head_dim of 8"),
        ({"fraction": 0.0}, "greater than 0"),
        ({"scaling": {"name": "llama3", "factor": 8.0, "original_length": 4, "low_frequency": 9.0}}, "below high_frequency"),
        ({"scaling": {"name": "yarn", "factor": 0.5, "original_length": 4}}, "greater than or equal to 1"),
        ({"scaling": {"name": "dynamic", "factor": 2.0}}, "original_length"),
    ],
)
def test_a_rope_that_cannot_be_is_refused_when_it_is_read(position: dict[str, Any], words: str) -> None:
    with pytest.raises(pairform.PairformError, match=words):
        decoder_with(position | {"name": "rope"})


def decoder_with(position: dict[str, Any], **stack: Any) -> pairform.ModelSpec:
    attention = {"name": "self_attention", "heads": 2, "head_dim": 8, "position": position, "mask": {"causal": True}}
    layer = {
        "norm": {"name": "rmsnorm"},
        "order": ["self_attention", "feed_forward"],
        "branches": {"self_attention": attention, "feed_forward": {"name": "mlp", "hidden": 16}},
    }
    return pairform.load_spec(
        {
            "assembly": "decoder_only",
            "vocabulary": 23,
            "tokens": {"pad": 0, "eos": 1, "bos": 2},
            "decoder": {"width": 16, "depth": 2, "embedding": {"name": "token"}, "layer": layer} | stack,
            "head": {"name": "lm"},
            "initializer_range": 0.5,
        }
    )
