"""Specs of layers, stacks and models. They validate everything that can be known without building anything."""

from collections.abc import Iterator
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, Strict, field_validator, model_validator

import pairform.blocks  # noqa: F401  (registers the built-in blocks)
from pairform.registry import (
    BlockSpec,
    Depth,
    Patch,
    PositiveFloat,
    PositiveInt,
    Probability,
    Problem,
    Sizes,
    Slot,
    Spec,
    SpecError,
    freeze,
    join_path,
    merge_patch,
    thaw,
)
from pairform.registry.spec import nested

SCHEMA_VERSION = 1
SCHEMA_ID = f"urn:pairform:schema:{SCHEMA_VERSION}"

Norm = Annotated[BlockSpec, Slot("norm")]
Branch = Annotated[BlockSpec, Slot("attention", "feed_forward")]
Placement = Literal["pre", "post", "sandwich"]
TokenId = Annotated[int, Field(ge=0)]


class LayerSpec(Spec):
    """Residual branches around one hidden state, in `order`.

    placement: where the norm stands. pre: `x + f(norm(x))`; post: `norm(x + f(x))`; sandwich: `x + norm(f(norm(x)))`.
    order:     may name branches that are absent (they keep their place for a patch that adds them).
    dropout:   on what each branch adds.
    """

    norm: Norm
    placement: Placement = "pre"
    order: Annotated[tuple[str, ...], Strict(False)]
    branches: Annotated[dict[str, Branch], AfterValidator(freeze)]
    dropout: Probability = 0.0

    @model_validator(mode="after")
    def _order_names_branches(self) -> Self:
        problems = [
            Problem(f"branches.{name}", "a branch that order does not name", f"{name!r} in order")
            for name in self.branches
            if name not in self.order
        ]
        if len(set(self.order)) < len(self.order):
            problems.append(Problem("order", f"{list(self.order)}", "each branch once"))
        if not self.present:
            problems.append(Problem("branches", "none", "at least one branch"))
        problems += [
            Problem(f"branches.{name}", "this name", "a name of letters, digits and underscores that starts with a letter")
            for name in self.branches
            if not name.isidentifier() or name.startswith("_")
        ]
        if problems:
            raise nested(problems)
        return self

    @property
    def present(self) -> list[str]:
        """The branches that the layer has, in their order."""
        return [name for name in self.order if name in self.branches]

    def check(self, sizes: Sizes) -> Iterator[Problem]:
        yield from (problem.inside("norm") for problem in self.norm.check(sizes))
        for name in self.present:
            yield from (problem.inside(f"branches.{name}") for problem in self.branches[name].check(sizes))


class StackSpec(Spec):
    """An embedding, `depth` layers and a final norm.

    layer:      every layer, before the patches below.
    cycle:      merge patches on `layer`, taken in turn: with two, layers 0, 2, 4... get the first.
    overrides:  merge patches by layer number ("0", or "-1" for the last), after the cycle's.
    final_norm: absent, like the layers' norm.
    dropout:    on the embeddings and on the last hidden states.
    vocabulary: absent, the model's.
    max_length: the longest sequence that the stack was trained for; longer ones warn in generation.
    """

    width: PositiveInt
    depth: Depth
    embedding: Annotated[BlockSpec, Slot("embedding")]
    layer: LayerSpec
    cycle: Annotated[tuple[Patch, ...], Strict(False)] = ()
    overrides: Patch = Field(default_factory=dict)
    final_norm: Norm | None = None
    dropout: Probability = 0.0
    vocabulary: PositiveInt | None = None
    max_length: PositiveInt | None = None

    @model_validator(mode="after")
    def _layers_validate(self) -> Self:
        try:
            _ = self.layers
        except SpecError as error:
            raise nested(error.problems) from None
        return self

    @cached_property
    def layers(self) -> tuple[LayerSpec, ...]:
        """Every layer's own spec, patches applied."""
        patches = self._override_patches()
        template = self.layer.document()
        made: dict[tuple[int, str | None], LayerSpec] = {}
        layers = []
        for index in range(self.depth):
            turn, override = index % max(len(self.cycle), 1), patches.get(index)
            if (turn, override) not in made:
                document, where = template, "layer"
                if self.cycle:
                    document, where = merge_patch(document, thaw(self.cycle[turn])), f"cycle[{turn}]"
                if override is not None:
                    document, where = merge_patch(document, thaw(self.overrides[override])), f"overrides.{override}"
                made[turn, override] = LayerSpec.read(document, where=where)
            layers.append(made[turn, override])
        return tuple(layers)

    @property
    def norm(self) -> BlockSpec:
        """The final norm's spec."""
        return self.final_norm or self.layer.norm

    def check(self, sizes: Sizes) -> Iterator[Problem]:
        yield from (problem.inside("embedding") for problem in self.embedding.check(sizes))
        if self.final_norm is not None:
            yield from (problem.inside("final_norm") for problem in self.final_norm.check(sizes))
        everywhere = set(self.layer.check(sizes))
        seen: set[Problem] = set()
        for index, layer in enumerate(self.layers):
            for problem in layer.check(sizes):
                if problem not in seen:
                    seen.add(problem)
                    yield problem.inside("layer" if problem in everywhere else f"layers[{index}]")

    def _override_patches(self) -> dict[int, str]:
        found: dict[int, str] = {}
        for key, patch in self.overrides.items():
            try:
                index = int(key)
            except ValueError:
                index = self.depth
            if not -self.depth <= index < self.depth:
                raise SpecError(
                    Problem(f"overrides.{key}", repr(key), f"a layer number from {-self.depth} to {self.depth - 1}")
                )
            if not isinstance(patch, dict):
                raise SpecError(Problem(f"overrides.{key}", repr(patch), "an object: a patch on the layer"))
            if index % self.depth in found:
                raise SpecError(Problem(f"overrides.{key}", "a second patch for the same layer", "one"))
            found[index % self.depth] = key
        return found


class TokenSpec(Spec):
    """Ids of special tokens. `start` begins the decoder's input; absent, `bos` does."""

    pad: TokenId | None = None
    bos: TokenId | None = None
    eos: TokenId | Annotated[tuple[TokenId, ...], Strict(False)] | None = None
    start: TokenId | None = None

    @property
    def first(self) -> int | None:
        return self.bos if self.start is None else self.start

    @property
    def ends(self) -> tuple[int, ...]:
        """Every end token."""
        if self.eos is None:
            return ()
        return self.eos if isinstance(self.eos, tuple) else (self.eos,)


class ModelSpec(Spec):
    """An assembly of stacks with a head: everything that is needed to build a model.

    initializer_range: standard deviation of fresh weights.
    """

    schema_: str = Field(default=SCHEMA_ID, alias="$schema")
    schema_version: Annotated[int, Field(ge=SCHEMA_VERSION, le=SCHEMA_VERSION)] = SCHEMA_VERSION
    assembly: Literal["encoder_decoder", "encoder_only", "decoder_only"]
    vocabulary: PositiveInt
    tokens: TokenSpec = TokenSpec()
    encoder: StackSpec | None = None
    decoder: StackSpec | None = None
    head: Annotated[BlockSpec, Slot("head")]
    initializer_range: PositiveFloat = 0.02

    @field_validator("schema_")
    @classmethod
    def _one_name_for_the_schema(cls, schema: str) -> str:
        """A document may point an editor to any copy of the schema; the spec itself has one name for it."""
        return SCHEMA_ID

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        problems = list(self._check())
        if problems:
            raise nested(problems)
        return self

    @property
    def stacks(self) -> dict[str, StackSpec]:
        """The stacks that the model has, by name, in the order in which they run."""
        stacks = {"encoder": self.encoder, "decoder": self.decoder}
        return {name: stack for name, stack in stacks.items() if stack is not None}

    @property
    def last(self) -> StackSpec:
        """The stack whose output the head reads."""
        return list(self.stacks.values())[-1]

    def vocabulary_of(self, part: str) -> int:
        return self.stacks[part].vocabulary or self.vocabulary

    def sizes(self, part: str) -> Sizes:
        """What the blocks of a stack learn from the model."""
        source = self.encoder.width if part == "decoder" and self.encoder is not None else None
        return Sizes(self.stacks[part].width, source, self.vocabulary_of(part), self.tokens.pad)

    @property
    def head_sizes(self) -> Sizes:
        return Sizes(self.last.width, None, self.vocabulary_of(list(self.stacks)[-1]))

    def _check(self) -> Iterator[Problem]:
        for part in ("encoder", "decoder"):
            wanted = self.assembly in ("encoder_decoder", f"{part}_only")
            if wanted and part not in self.stacks:
                yield Problem(part, "nothing", f"a stack: the assembly is {self.assembly}")
            elif not wanted and part in self.stacks:
                yield Problem(part, "a stack", f"none: the assembly is {self.assembly}")
        for part, stack in self.stacks.items():
            yield from (problem.inside(part) for problem in stack.check(self.sizes(part)))
        if self.stacks:
            yield from (problem.inside("head") for problem in self.head.check(self.head_sizes))
            yield from self._check_tie()
            yield from self._check_tokens()

    def _check_tie(self) -> Iterator[Problem]:
        tie: Any = getattr(self.head, "tie", None)
        if tie is None:
            return
        if tie not in self.stacks:
            yield Problem("head.tie", repr(tie), f"one of the model's stacks: {', '.join(self.stacks)}")
            return
        table = (self.vocabulary_of(tie), self.stacks[tie].width)
        needed = (self.head_sizes.vocabulary, self.last.width)
        if table != needed:
            yield Problem("head.tie", f"the {tie}'s table of {table}", f"a table of {needed}", "Leave tie out for an own one.")

    def _check_tokens(self) -> Iterator[Problem]:
        smallest = min(self.vocabulary_of(part) for part in self.stacks)
        tokens = {"pad": self.tokens.pad, "bos": self.tokens.bos, "start": self.tokens.start}
        tokens |= {f"eos[{index}]" if len(self.tokens.ends) > 1 else "eos": end for index, end in enumerate(self.tokens.ends)}
        for name, token in tokens.items():
            if token is not None and token >= smallest:
                yield Problem(join_path("tokens", name), str(token), f"an id below the vocabulary's size, {smallest}")
