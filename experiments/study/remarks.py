"""Remarks on planned models that are probably not what was meant. They say so and reject nothing."""

from collections.abc import Iterator
from dataclasses import replace

from pairform.assemblies.analysis.diagrams.drawing import source_of
from pairform.assemblies.specs.model import ModelSpec
from pairform.blocks.attention.mask_spec import AttentionFields
from pairform.experiments.study.spec import StudySpec
from pairform.experiments.study.variants import Variant
from pairform.registry.errors import cut_middle

LONGEST_NAME = 80
"""Characters of a name."""


def remarks(spec: ModelSpec) -> Iterator[str]:
    """What is unusual in how the decoder of an encoder-decoder reads the encoder, as sentences about the variant."""
    if spec.encoder is None or spec.decoder is None:
        return
    sizes, layers = replace(spec.sizes("decoder"), depth=spec.decoder.depth), spec.decoder.layers
    kinds = {id(layer): index for index, layer in reversed([*enumerate(layers)])}
    read = False
    for index in sorted(kinds.values()):
        layer = layers[index]
        readers = [name for name in layer.present if source_of(layer.branches[name], replace(sizes, layer=index))]
        merged = [name for name in readers if AttentionFields.of(layer.branches[name]).mask is not None]
        read = read or bool(readers)
        if merged and len(readers) > 1:
            names = ", ".join(f"{cut_middle(name, LONGEST_NAME)} ({layer.branches[name].name})" for name in readers)
            other = cut_middle(next((name for name in readers if name not in merged), readers[-1]), LONGEST_NAME)
            remedy = f'If one is meant, remove the other, as with `"{other}": null`.'
            yield f"layer {index} of its decoder reads the encoder in {len(readers)} branches: {names}. {remedy}"
            return
    if not read:
        yield "no block of its decoder reads the encoder."


def one_of_equals(study: StudySpec, variants: list[Variant]) -> list[Variant]:
    """The variants without those that are another one under a second name, which that one lists in `also`.

    Of factors and tuned values every combination is kept, since effects and choices are computed from all. A remark says which
    are the same.
    """
    names: dict[str, list[str]] = {}
    for variant in variants:
        names.setdefault(variant.identity, []).append(variant.name)
    if study.factors or study.tune:
        return [with_equal(variant, names[variant.identity][0]) for variant in variants]
    first = {own[0]: tuple(own[1:]) for own in names.values()}
    return [replace(variant, also=first[variant.name]) for variant in variants if variant.name in first]


def with_equal(variant: Variant, first: str) -> Variant:
    """The variant with a remark if it is the same as the variant `first`."""
    if first == variant.name:
        return variant
    same = f"the same model, training and weights as {cut_middle(first, LONGEST_NAME)}, with trials of its own."
    return replace(variant, remarks=(*variant.remarks, same))
