"""Small decoders, two rows for them to read, and what holds of decoding with a cache."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

import pairform

IDS = torch.randint(3, 23, (2, 9), generator=torch.Generator().manual_seed(0))
MASK = torch.ones_like(IDS)
"""The second row is padded on the left."""
MASK[1, :4] = 0


def decoder_with(position: dict[str, Any], /, **stack: Any) -> pairform.ModelSpec:
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


def check_writing(
    model: pairform.Model, ids: Tensor = IDS, mask: Tensor = MASK, *, tokens: int = 5, beams: Sequence[int] = (1, 2)
) -> Tensor:
    """The same is written with a cache as without; the text of the last number of beams."""
    for number in beams:
        cached, plain = (
            model.generate(ids, mask, max_new_tokens=tokens, num_beams=number, use_cache=use_cache)
            for use_cache in (True, False)
        )
        assert torch.equal(cached, plain), f"{number} beams"
    return plain


@torch.no_grad()
def check_pieces(model: pairform.Model, pieces: int | list[int], ids: Tensor = IDS, *, tolerance: float = 1e-4) -> None:
    """The logits of a text are the same when it is read in pieces of these lengths."""
    cache = pairform.Cache()
    found = [model(piece, cache=cache).logits for piece in torch.split(ids, pieces, 1)]
    torch.testing.assert_close(torch.cat(found, 1), model(ids).logits, rtol=tolerance, atol=tolerance)
