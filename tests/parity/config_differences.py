"""Where pairform and transformers read a field differently, and why."""

from typing import NamedTuple

BARTS = ("bart", "mbart", "marian", "pegasus", "m2m_100")
GEMMAS = ("gemma2", "gemma3_text", "gemma3", "t5gemma", "t5gemma2", "t5gemma2_encoder")


class Difference(NamedTuple):
    """Mutations that may have another effect in transformers, by the end of their text, and the families where they may.

    An empty `families` stands for all of them.
    """

    names: tuple[str, ...]
    families: tuple[str, ...]
    reason: str


DIFFERENCES = (
    Difference(
        ('dtype = "bfloat16"',),
        (),
        "pairform keeps the dtype of the files unless `load(dtype=)` is given; transformers converts weights",
    ),
    Difference(("hidden_activation = null",), GEMMAS, "pairform uses the default; transformers 5.23 raises an error"),
    Difference(
        ("encoder_layerdrop = 0.25", "decoder_layerdrop = 0.25"),
        BARTS,
        "transformers drops whole layers in training; pairform does not, and warns",
    ),
    Difference(
        ("encoder_layerdrop", "decoder_layerdrop"),
        ("m2m_100",),
        "the default rate is not 0; transformers drops whole layers in training",
    ),
    Difference(
        ("max_position_embeddings", "max_position_embeddings = 41"),
        ("pegasus",),
        "the files hold a table of sines of this length, which transformers reads; pairform computes the sines",
    ),
    Difference(
        ("text_config.dropout_rate",),
        ("t5gemma2_encoder",),
        "pairform uses 0 if it is absent; transformers has no default for encoders alone, and fails",
    ),
)


def differing(family: str) -> tuple[str, ...]:
    """The mutations of a family that may differ, by the end of their text."""
    return tuple(name for each in DIFFERENCES if not each.families or family in each.families for name in each.names)


def legend() -> list[tuple[str, str]]:
    """Each difference as it is named on the page, with its reason."""
    return [
        (
            ", ".join(f"`{name}`" for name in each.names) + (f" ({', '.join(each.families)})" if each.families else ""),
            each.reason,
        )
        for each in DIFFERENCES
    ]
