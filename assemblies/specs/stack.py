"""The spec of a stack: an embedding, layers given by a template and patches on it, a final norm."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from itertools import islice
from typing import Annotated, Any, Self, TypeVar

from pydantic import BeforeValidator, Field, Strict, model_validator

from pairform.assemblies.specs.layer import LayerSpec, Norm
from pairform.assemblies.specs.shared import check_shared_keys, check_shared_tables
from pairform.assemblies.specs.tokens import TokenId, TokenSpec
from pairform.assemblies.specs.view import show_stack
from pairform.blocks.attention.mask_spec import AttentionFields
from pairform.blocks.layer_inputs import LayerInputSpec
from pairform.blocks.spec_fields import PictureEmbeddingSpec, ProjectorSpec
from pairform.registry import (
    MOST_LAYERS,
    BlockSpec,
    Depth,
    Patch,
    PositiveInt,
    Probability,
    Problem,
    Sizes,
    Slot,
    Spec,
    SpecError,
    merge_patch,
    nested,
    thaw,
)

T = TypeVar("T")
MOST_BRANCHES = 10_000
"""Branches to validate and patches to apply in a stack whose layers all differ: they take about a second."""


def shortest_cycle(items: list[T]) -> list[T]:
    """The shortest list whose repetition starts with `items`, for a stack's `cycle`."""
    for period in range(1, len(items)):
        if all(item == items[index % period] for index, item in enumerate(items)):
            return items[:period]
    return items


class Override(Spec):
    """A merge patch on single layers, by number from 0, or from -1 for the last."""

    layers: Annotated[tuple[int, ...], Strict(False)] = Field(description="Layer numbers from 0, or from -1 for the last.")
    patch: Patch = Field(description="Merge patch on these layers.")


def short_enough(value: Any) -> Any:
    """Refuse a list of more items than there can be layers before each item is validated: pydantic reports every wrong item,
    which takes half a minute for two million."""
    if isinstance(value, list | tuple) and len(value) > MOST_LAYERS:
        raise nested([Problem("", f"a list of {len(value):,}", f"at most {MOST_LAYERS:,} of them")])
    return value


PerLayer = Annotated[tuple[T, ...], Strict(False), Field(max_length=MOST_LAYERS), BeforeValidator(short_enough)]
"""A list with at most one item for each layer."""


class StackSpec(Spec):
    """An embedding, `depth` layers and a final norm."""

    width: PositiveInt = Field(description="Channels of the hidden states.")
    depth: Depth = Field(description="Number of layers.")
    embedding: Annotated[BlockSpec, Slot("embedding")] = Field(
        description="Token embedding, or patch embedding in a vision tower."
    )
    position: Annotated[BlockSpec, Slot("absolute_position")] | None = Field(
        default=None, description="Absolute position added to the embeddings. Default: none."
    )
    token_types: PositiveInt | None = Field(
        default=None,
        description="Number of token types, each a learned vector added to the embeddings (segment embeddings of BERT; Devlin "
        "et al. 2019, arXiv 1810.04805, section 3): `token_type_ids` say which, by default 0. Default: none.",
    )
    embedding_norm: Norm | None = Field(
        default=None,
        description="Norm of the embeddings with their token types and positions, before dropout (BERT). Default: none.",
    )
    layer: LayerSpec = Field(description="Template of every layer, to which `cycle` and `overrides` apply.")
    cycle: PerLayer[Patch] = Field(
        default=(),
        description="Merge patches on `layer`, assigned to the layers in turn: with two, layers 0, 2, 4... get the first.",
    )
    overrides: PerLayer[Override] = Field(
        default=(), description="Merge patches on single layers, applied after those of the cycle, in order."
    )
    layer_input: LayerInputSpec | None = Field(
        default=None, description="An input of each layer besides its hidden states. Default: none."
    )
    final_norm: Norm | None = Field(default=None, description="Norm of the last hidden states. Default: the layers' norm.")
    dropout: Probability = Field(default=0.0, description="Dropout rate on the embeddings and on the last hidden states.")
    final_dropout: Probability | None = Field(
        default=None, description="Dropout rate on the last hidden states. Default: `dropout`."
    )
    vision: "VisionSpec | None" = Field(
        default=None, description="How pictures among the tokens are encoded. Default: the stack reads text only."
    )
    vocabulary: PositiveInt | None = Field(default=None, description="Number of token ids. Default: the model's.")
    tokens: TokenSpec | None = Field(
        default=None,
        description="Special tokens of an encoder whose tokenizer differs from the decoder's. Default: the model's.",
    )
    max_length: PositiveInt | None = Field(
        default=None, description="Longest sequence in tokens that the stack was trained on; generation warns beyond it."
    )

    @model_validator(mode="after")
    def _layers_validate(self) -> Self:
        problems = list(islice(self._check_overrides(), 1000))
        if problems:
            raise nested(problems)
        try:
            _ = self.layers
        except SpecError as error:
            raise nested(error.problems) from None
        return self

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return show_stack(self)

    @cached_property
    def layers(self) -> tuple[LayerSpec, ...]:
        """Every layer's own spec, patches applied. Equal layers are one object."""
        made: dict[tuple[str, ...], LayerSpec] = {}
        layers = []
        work = 0
        for patches in (*map(dict, map(self.patches, range(self.depth))), *self._unused()):
            kind = tuple(patches)
            if kind not in made:
                work += len(self.layer.branches) + len(patches)
                if work > MOST_BRANCHES:
                    expected = f"fewer: at most {MOST_BRANCHES:,} branches and patches in all kinds of layers"
                    raise SpecError(Problem("layers", f"layers of more than {len(made):,} kinds", expected))
                document = self.layer.document()
                for patch in patches.values():
                    document = merge_patch(document, thaw(patch), LayerSpec)
                made[kind] = LayerSpec.read(document, where=kind[-1] if kind else "layer")
            layers.append(made[kind])
        return tuple(layers[: self.depth])

    def _unused(self) -> Iterator[dict[str, dict[str, Any]]]:
        """The patches that no layer has, each alone, to be validated like the others."""
        for place in range(self.depth, len(self.cycle)):
            yield {f"cycle[{place}]": self.cycle[place]}
        for number, override in enumerate(self.overrides):
            if not override.layers:
                yield {f"overrides[{number}].patch": override.patch}

    def patches(self, index: int) -> Iterator[tuple[str, dict[str, Any]]]:
        """The patches of layer `index` on the template, each with its path in the spec."""
        if self.cycle:
            place = index % len(self.cycle)
            yield f"cycle[{place}]", self.cycle[place]
        for number in self._overriding.get(index, ()):
            yield f"overrides[{number}].patch", self.overrides[number].patch

    @cached_property
    def _overriding(self) -> dict[int, list[int]]:
        """The numbers of each layer's overrides, in order."""
        found: dict[int, list[int]] = {}
        for number, override in enumerate(self.overrides):
            for layer in dict.fromkeys(layer % self.depth for layer in override.layers if -self.depth <= layer < self.depth):
                found.setdefault(layer, []).append(number)
        return found

    @cached_property
    def prefixed(self) -> bool:
        """Whether the mask of some branch has a prefix."""
        branches = (layer.branches[name] for layer in self.layers for name in layer.present)
        return any((mask := AttentionFields.of(branch).mask) is not None and mask.prefix for branch in branches)

    @property
    def qk_normed(self) -> bool:
        """Whether some layer's self-attention normalises queries and keys."""
        return any(layer.self_attention.qk_norm is not None for layer in self.layers)

    @property
    def norm(self) -> BlockSpec:
        """The final norm's spec."""
        return self.final_norm or self.layer.norm

    def check(self, sizes: Sizes) -> Iterator[Problem]:
        """Problems of the stack's blocks in a model that gives it these sizes."""
        sizes = replace(sizes, depth=self.depth)
        for field in ("embedding", "position", "embedding_norm", "layer_input", "final_norm", "vision"):
            part: BlockSpec | VisionSpec | LayerInputSpec | None = getattr(self, field)
            if part is not None:
                yield from (problem.inside(field) for problem in part.check(sizes))
        if self.layer_input is not None and self.vision is not None:
            yield Problem("layer_input", "per-layer inputs in a stack with vision", "one of both: pictures have no token ids")
        everywhere = set(self.layer.check(sizes))
        seen: set[Problem] = set()
        kinds = {id(layer): index for index, layer in reversed([*enumerate(self.layers)])}
        for index in sorted(kinds.values()):
            for problem in self.layers[index].check(sizes):
                if problem not in seen:
                    seen.add(problem)
                    yield problem.inside("layer" if problem in everywhere else f"layers[{index}]")
        yield from check_shared_tables(self.layers)
        yield from check_shared_keys(self.layers, self.width)

    def _check_overrides(self) -> Iterator[Problem]:
        for number, override in enumerate(self.overrides):
            for place, layer in enumerate(override.layers):
                if not -self.depth <= layer < self.depth:
                    expected = f"a layer number from {-self.depth} to {self.depth - 1}"
                    yield Problem(f"overrides[{number}].layers[{place}]", str(layer), expected)


class VisionSpec(Spec):
    """Pictures in a stack's input: each is read by `tower`, and what `projector` makes of it stands at image tokens."""

    tower: StackSpec = Field(description="Stack that encodes a picture; its embedding is of patches.")
    projector: Annotated[BlockSpec, Slot("projector")] = Field(
        description="Maps the tower's output to embeddings of image tokens."
    )
    image_token: TokenId = Field(description="Token id that is replaced with one embedding of a picture.")
    begin_token: TokenId | None = Field(default=None, description="Token id before a picture, for use in preprocessing.")
    end_token: TokenId | None = Field(default=None, description="Token id after a picture, for use in preprocessing.")
    frozen: bool = Field(default=True, description="Keep the tower's weights fixed in training.")

    def sizes(self, width: int) -> Sizes:
        """The sizes for the projector, in a stack of `width`."""
        return Sizes(width, self.tower.width, source_length=PictureEmbeddingSpec.of(self.tower.embedding).patches)

    @property
    def tokens(self) -> int:
        """How many embeddings one picture becomes; 0 for a projector that does not declare it."""
        return ProjectorSpec.of(self.projector).tokens

    def check(self, sizes: Sizes) -> Iterator[Problem]:
        """Problems of the tower and the projector in a stack with these sizes."""
        if sizes.source_width is not None:
            yield Problem("", "pictures in a decoder beside an encoder", "vision in the encoder, which reads the input")
        if self.tower.vision is not None:
            yield Problem("tower.vision", "pictures inside pictures", "none")
        others = {"the padding token": sizes.pad, "begin_token": self.begin_token, "end_token": self.end_token}
        for name, token in others.items():
            if token == self.image_token:
                yield Problem("image_token", f"{token}, as {name}", "an id of its own")
        yield from (problem.inside("tower") for problem in self.tower.check(Sizes(self.tower.width)))
        if PictureEmbeddingSpec.of(self.tower.embedding).patches is None:
            yield Problem("tower.embedding", f"{self.tower.embedding.name!r}", "an embedding of pictures, such as patches")
            return
        yield from (problem.inside("projector") for problem in self.projector.check(self.sizes(sizes.width)))


StackSpec.model_rebuild()
