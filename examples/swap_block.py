"""Swap a block: a small T5Gemma whose decoder has a plain MLP instead of a gated feed-forward layer."""

from pathlib import Path

import torch

import pairform

SWAPPED = Path(__file__).with_name("swapped_block.json")
GATED = {"decoder": {"layer": {"branches": {"feed_forward": {"name": "gated"}}}}}


def main() -> None:
    mlp = pairform.load_spec(SWAPPED)
    gated = pairform.patch(mlp, GATED)
    for path, (before, after) in pairform.diff(gated, mlp).items():
        print(f"{path}: {before} -> {after}")
    for spec in (gated, mlp):
        parameters = pairform.inspect(spec).parameters["decoder"]
        print(f"{parameters:,} parameters in the decoder, loss {loss(pairform.build(spec, seed=0)):.3f}")


@torch.no_grad()
def loss(model: pairform.Model) -> float:
    """The loss of one forward pass over random tokens."""
    generator = torch.Generator().manual_seed(0)
    source, target = (torch.randint(3, 1024, (2, length), generator=generator) for length in (12, 8))
    return float(model(source, labels=target).loss)


if __name__ == "__main__":
    main()
