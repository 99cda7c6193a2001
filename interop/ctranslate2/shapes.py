"""Which specs CTranslate2 computes, and for texts of which length.

Its converter drops what its runtime lacks without a word: softcaps, the base of rotations, the scale of queries. So each of
these is checked in the spec, before anything is converted. Versions 4.8.5 of CTranslate2 and 5.23 of transformers were read.
"""

from collections.abc import Iterator
from math import isclose

from pairform.assemblies.families import family_of_spec
from pairform.assemblies.specs.model import ModelSpec
from pairform.blocks.attention.mask_spec import AttentionFields
from pairform.blocks.positions.rotary import RotaryPosition
from pairform.blocks.spec_fields import HeadSpec
from pairform.registry import BlockSpec, Problem, SpecError, join_path

KNOWN = ("t5", "umt5", "t5gemma", "t5gemma2")
"""Families, by transformers' name, whose conversion was compared with ours."""
ROPE_BASE = 10_000.0
"""The base that its converter gives T5Gemma, whose configuration has none in transformers 5."""
EPS = 1e-6
"""The epsilon that its converter gives T5's norms."""


def family_for(spec: ModelSpec) -> str:
    """The family as which a spec is converted.

    Raises:
        SpecError: what CTranslate2 would not compute.
    """
    family, _ = family_of_spec(spec)
    if spec.assembly != "encoder_decoder" or spec.head.name != "lm" or family.model_type not in KNOWN:
        found = f"{spec.assembly} of the family {family.model_type} with the head {spec.head.name}"
        raise SpecError(Problem("", found, f"an encoder-decoder of one of the families {', '.join(KNOWN)} with the head lm"))
    if problems := list(differences(spec, family.model_type)):
        raise SpecError(problems)
    return family.model_type


def differences(spec: ModelSpec, family: str) -> Iterator[Problem]:
    """What CTranslate2 would compute otherwise."""
    if spec.encoder is None or spec.decoder is None:
        return
    if spec.vocabulary_of("encoder") != spec.vocabulary_of("decoder") or spec.encoder.tokens is not None:
        yield Problem("encoder.vocabulary", "another vocabulary or other tokens than the decoder's", "one for both stacks")
    head = HeadSpec.of(spec.head)
    if head.softcap is not None:
        yield dropped("head.softcap", head.softcap)
    if family == "t5" and head.scale is None:
        expected = "inverse_sqrt_width, by which CTranslate2 scales the output of every T5"
        yield Problem("head.scale", "none, as in T5 1.1 and mT5", expected)
    if family == "t5gemma" and head.tie != "decoder":
        yield Problem("head.tie", repr(head.tie), "'decoder', whose embeddings CTranslate2 takes for the head of T5Gemma")
    epsilons = {eps_of(norm) for stack in spec.stacks.values() for norm in (stack.norm, stack.layer.norm)}
    if len(epsilons) > 1 or (family in ("t5", "umt5") and not isclose(next(iter(epsilons)), EPS)):
        expected = "one for all norms" if len(epsilons) > 1 else f"{EPS}, which CTranslate2 gives every T5"
        yield Problem("layer.norm.eps", " and ".join(map(str, sorted(epsilons))), expected)
    found: dict[Problem, None] = {}  # layers repeat each other's
    for part, stack in spec.stacks.items():
        for layer in stack.layers:
            for name in layer.present:
                if "attention" in name:
                    place = join_path(part, "layer", "branches", name)
                    found |= dict.fromkeys(each.inside(place) for each in of_attention(layer.branches[name], family))
    yield from found


def of_attention(block: BlockSpec, family: str) -> Iterator[Problem]:
    """What CTranslate2 would compute otherwise in an attention block of T5Gemma's kind."""
    fields = block.document()
    if fields.get("softcap") is not None:
        yield dropped("softcap", fields["softcap"])
    if family not in ("t5gemma", "t5gemma2"):
        return
    attention = AttentionFields.of(block)
    assert attention.head_dim is not None, "transformers' Gemma always has it"
    usual = attention.head_dim**-0.5
    if not isclose(fields.get("scale") or usual, usual, rel_tol=1e-6):
        yield Problem(
            "scale", str(fields["scale"]), f"head_dim ** -0.5, {usual:.6g}: CTranslate2 ignores query_pre_attn_scalar"
        )
    rope = attention.position
    if family == "t5gemma" and isinstance(rope, RotaryPosition.Spec) and rope.theta != ROPE_BASE:
        yield Problem("position.theta", str(rope.theta), f"{ROPE_BASE}, which CTranslate2 gives every T5Gemma")
    if isinstance(rope, RotaryPosition.Spec) and rope.scaling.name not in KNOWN_SCALINGS[family]:
        expected = f"one of {', '.join(KNOWN_SCALINGS[family])}"
        yield Problem("position.scaling", rope.scaling.name, expected)


KNOWN_SCALINGS = {"t5gemma": ("default",), "t5gemma2": ("default", "linear")}


def dropped(where: str, softcap: float) -> Problem:
    return Problem(where, str(softcap), "none: CTranslate2 has no softcap, and would compute without it")


def eps_of(norm: BlockSpec) -> float:
    return norm.document().get("eps", EPS)


def longest(spec: ModelSpec) -> int | None:
    """The number of tokens up to which no window of a stack masks anything; None without windows.

    CTranslate2 has no windows in encoders, and other ones in decoders.
    """
    masks = [AttentionFields.of(layer.self_attention).mask for stack in spec.stacks.values() for layer in stack.layers]
    reaches = [min(mask.window[0], mask.window[0] if mask.causal else mask.window[1]) for mask in masks if mask and mask.window]
    return min(reaches) + 1 if reaches else None
