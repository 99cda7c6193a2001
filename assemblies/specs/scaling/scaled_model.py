"""A model scaled to another width and depth."""

from dataclasses import replace
from fractions import Fraction
from typing import Any

from pydantic import Field

from pairform.assemblies.specs.model import ModelSpec, StackSpec
from pairform.assemblies.specs.scaling.scaled_blocks import scaled
from pairform.assemblies.specs.scaling.scaled_layers import with_scaled_layers
from pairform.assemblies.specs.scaling.scaled_sizes import ONE, Factors, nearest, proportional
from pairform.blocks.attention.mask_spec import AttentionFields
from pairform.registry import Depth, PositiveInt, Problem, Sizes, Spec, SpecError, merge_patch

PARTS = ("embedding", "position", "embedding_norm", "layer_input", "final_norm")
"""Blocks of a stack outside its layers."""


class ScaleSpec(Spec):
    """A new size for a model. Its proportions are kept: heads, head dimensions, hidden sizes, latent ranks and the ratios of
    the stacks follow the width; what does not depend on the width, such as numbers of experts, stays."""

    width: PositiveInt | None = Field(
        default=None,
        description="Width of the decoder, or of an encoder-only model's encoder. An encoder of another width keeps its ratio, "
        "rounded. Default: unchanged.",
    )
    depth: Depth | None = Field(
        default=None,
        description="Number of layers of the decoder, or of an encoder-only model's encoder; an encoder keeps its ratio. The "
        "cycle of layers is kept; if there are fewer layers than it has, they are chosen from it evenly, its last included. "
        "Default: unchanged.",
    )
    window: PositiveInt | None = Field(
        default=None,
        description="Largest distance of a sliding window; smaller windows keep their ratio to it. Default: windows stay.",
    )


def scale_model(spec: ModelSpec, size: ScaleSpec, base: ModelSpec | None = None) -> ModelSpec:
    """A model with another width and depth, and its proportions kept.

    Args:
        spec: The model.
        size: The new size.
        base: The model that gets this size; `spec` is scaled by the same factors. Default: `spec`.

    Raises:
        SpecError: the model has no such size: its blocks do not fit the width.
    """
    base = base or spec
    width = ONE if size.width is None else Fraction(size.width, base.last.width)
    depth = ONE if size.depth is None else Fraction(size.depth, base.last.depth)
    window = ONE
    if size.window is not None:
        if not (largest := largest_window(base)):
            raise SpecError(Problem("window", str(size.window), "none: the model has no sliding window"))
        window = Fraction(size.window, largest)
    widths = {part: scaled_width(spec, part, width) for part in spec.stacks}
    depths = {part: scaled_depth(stack.depth, depth) for part, stack in spec.stacks.items()}
    document = spec.document()
    for part, stack in spec.stacks.items():
        sizes = replace(spec.sizes(part), width=widths[part])
        if part == "decoder" and spec.encoder is not None:
            source = spec.bridge.source_width(widths["encoder"], widths["decoder"])
            sizes = replace(sizes, source_width=source, source_depth=depths["encoder"])
        layers = (depths["encoder"], spec.encoder.depth) if spec.encoder is not None else (1, 1)
        factors = Factors(Fraction(widths[part], stack.width), window, layers)
        document[part] = scaled_stack(stack, depths[part], factors, replace(sizes, depth=depths[part]), depth)
    last = list(spec.stacks)[-1]
    factors = Factors(Fraction(widths[last], spec.last.width))
    head = scaled(spec.head, factors, spec.last.width, replace(spec.head_sizes, width=widths[last]))
    document["head"] = merge_patch(document["head"], head)
    return ModelSpec.read(document)


def scaled_width(spec: ModelSpec, part: str, factor: Fraction) -> int:
    """A stack's new width: exact for the last stack and those of its width."""
    exact = spec.stacks[part].width * factor
    if spec.stacks[part].width == spec.last.width and exact.denominator == 1:
        return int(exact)
    return proportional(spec.stacks[part].width, factor)


def scaled_depth(depth: int, factor: Fraction) -> int:
    return nearest(depth * factor)


def largest_window(spec: ModelSpec) -> int:
    """The largest distance of all sliding windows; 0 without any."""
    masks = [
        AttentionFields.of(branch).mask
        for stack in spec.stacks.values()
        for layer in stack.layers
        for branch in layer.branches.values()
    ]
    return max((side for mask in masks if mask is not None and mask.window is not None for side in mask.window), default=0)


def scaled_stack(stack: StackSpec, depth: int, factors: Factors, sizes: Sizes, deeper: Fraction) -> dict[str, Any]:
    """The document of a scaled stack. deeper: the factor on the depth of its vision tower."""
    document = stack.document() | {"width": sizes.width}
    for part in PARTS:
        block = getattr(stack, part)
        if block is not None:
            document[part] = merge_patch(document[part], scaled(block, factors, stack.width, sizes))
    document = with_scaled_layers(stack, document, depth, sizes.width, lambda layer: scaled(layer, factors, stack.width, sizes))
    if stack.vision is not None:
        tower = stack.vision.tower
        own = proportional(tower.width, factors.width)
        inside = Factors(Fraction(own, tower.width), factors.window)
        layers = scaled_depth(tower.depth, deeper)
        document["vision"]["tower"] = scaled_stack(tower, layers, inside, Sizes(own, depth=layers), deeper)
    return document
