"""Model types that pairform does not read, and why."""

from collections.abc import Iterable, Mapping

from pairform.registry import Problem, shorten

DISENTANGLED = "its attention scores have terms for content and relative position that no block here computes"
UNREAD: Mapping[str, str] = {
    "deberta": DISENTANGLED,
    "deberta-v2": DISENTANGLED,
    "electra": "its narrow embeddings are projected after their norm, and no head here is its discriminator",
}
"""The reasons, by model type, why families near those that are read are not."""


def unread(where: str, model_type: object, known: Iterable[str], remedy: str = "") -> Problem:
    """A `model_type` that is none of `known`, with the reason if there is one."""
    found = "nothing" if model_type is None else shorten(model_type)
    if isinstance(model_type, str) and model_type in UNREAD:
        found += f", which is not read: {UNREAD[model_type]}"
    return Problem(where, found, f"one of {', '.join(known)}", remedy)
