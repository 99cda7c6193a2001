"""Pictures of docs/figures/blocks/, drawn from the code that they show.

`make schema` rewrites them with the other golden files; `python -m tests.golden.figures` writes only them and docs/blocks.md.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.golden.figures import curves, flows, masks
from tests.golden.figures.sheet import Sheet


@dataclass(frozen=True)
class Figure:
    """alt: what it shows, for those who do not see it. paint: draws it and returns its width and height."""

    alt: str
    paint: Callable[[Sheet], tuple[float, float]]


FIGURES: Mapping[str, Figure] = {
    "norm-dynamic_tanh": Figure(
        "The hyperbolic tangent with the slopes 0.5 and 0.2: large inputs approach 1", curves.dynamic_tanh
    ),
    "residual-add": Figure(
        "Where norms stand in a branch under the placements pre, post, inner_post and sandwich", flows.placements
    ),
    "position-rope": Figure(
        "The product of a rotated query and a rotated key falls with the distance, faster with a smaller theta; below, the "
        "rotation of four pairs of channels at positions 0 to 7, slower from pair to pair",
        curves.rope,
    ),
    "position-alibi": Figure(
        "Biases of four heads: straight lines that fall with the distance, each with its own slope", curves.alibi
    ),
    "position-t5_relative": Figure(
        "Buckets by distance: one for each small distance, then ever wider ones, of which the last has no end",
        curves.t5_relative,
    ),
    "absolute_position-sinusoidal": Figure(
        "What is added to four channels by position: sine waves whose length grows with the channel", curves.sinusoidal
    ),
    "attention-self_attention": Figure(
        "Three masks as matrices of queries and keys; below, four query heads with four, two or one key head",
        masks.self_attention,
    ),
    "attention-cross_attention": Figure(
        "Two matrices: causal self-attention to own tokens, and cross-attention to all source tokens but padding",
        masks.cross_attention,
    ),
    "attention-merged_attention": Figure(
        "Matrices of own and source keys side by side under one softmax: the window of a local layer limits own keys only",
        masks.merged_attention,
    ),
    "attention-latent_attention": Figure(
        "A latent vector and a shared key are cached; the keys and values of all heads are projected from the latent vector",
        flows.latent,
    ),
    "attention-differential_attention": Figure(
        "Two softmaxes of a pair of heads weight the same values; the second output times lambda is subtracted from the first",
        flows.differential,
    ),
    "attention-retention": Figure(
        "In a step, the state decays, and the product of key and value is added; below, the share of a token that is left in "
        "the state falls exponentially, more slowly from head to head",
        curves.retention,
    ),
    "feed_forward-gated": Figure(
        "The input is projected twice; one projection passes the activation and gates the other", flows.gated
    ),
    "feed_forward-mixture": Figure(
        "A router chooses two of four experts for a token; their weighted output and that of a shared block are added",
        flows.mixture,
    ),
    "projector-average_pool": Figure(
        "A square of 64 patches in four parts, each of which becomes one token", masks.average_pool
    ),
    "masks": Figure(
        "Eight masks as matrices of queries and keys: both directions, causal, a causal window, a window on both sides, a "
        "prefix, two segments, padding, and two new tokens after six cached ones",
        masks.masks,
    ),
    "initialisation": Figure(
        "Parts of two decoder-only models are copied to an encoder and a decoder; cross-attention is copied or new",
        flows.initialisation,
    ),
    "comparisons": Figure(
        "The probability of a false finding grows to 64 % with twenty comparisons, and stays at 5 % with Holm's correction",
        curves.comparisons,
    ),
}
"""By file name: `KIND-NAME` is shown with that block in docs/blocks.md, others stand in docs/explanations/."""


def draw(name: str) -> str:
    """The text of the SVG file."""
    sheet = Sheet()
    width, height = FIGURES[name].paint(sheet)
    return sheet.document(width, height, FIGURES[name].alt)
