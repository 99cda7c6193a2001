"""The spec of a model. It validates everything that can be checked without building anything."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from pairform.assemblies.specs.layer import LayerSpec
from pairform.assemblies.specs.stack import StackSpec, VisionSpec
from pairform.assemblies.specs.tokens import TokenSpec
from pairform.assemblies.specs.view import show_model
from pairform.blocks.spec_fields import BridgeSpec, HeadSpec
from pairform.registry import BlockSpec, PositiveFloat, PositiveInt, Problem, Sizes, Slot, Spec, join_path, nested

__all__ = ["SCHEMA_ID", "SCHEMA_VERSION", "LayerSpec", "ModelSpec", "StackSpec", "TokenSpec", "VisionSpec"]

SCHEMA_VERSION = 1
SCHEMA_ID = f"urn:pairform:schema:{SCHEMA_VERSION}"


class ModelSpec(Spec):
    """An assembly of stacks with a head: everything that is needed to build a model."""

    schema_: str = Field(default=SCHEMA_ID, alias="$schema", description="Identifier of the JSON Schema.")
    schema_version: Annotated[int, Field(ge=SCHEMA_VERSION, le=SCHEMA_VERSION)] = Field(
        default=SCHEMA_VERSION, description="Version of the document format."
    )
    assembly: Literal["encoder_decoder", "encoder_only", "decoder_only"] = Field(description="Which stacks the model has.")
    vocabulary: PositiveInt = Field(description="Number of token ids.")
    tokens: TokenSpec = Field(
        default=TokenSpec(), description="Special tokens of every stack, except an encoder with its own (`encoder.tokens`)."
    )
    encoder: StackSpec | None = Field(
        default=None, description="Stack that reads the input of an encoder-decoder or encoder-only model."
    )
    decoder: StackSpec | None = Field(default=None, description="Stack that generates the output.")
    bridge: Annotated[BridgeSpec, Slot("bridge")] = Field(
        default=BridgeSpec(name="none"), description="Maps the encoder's output for a decoder that cannot read its width."
    )
    tie_embeddings: bool = Field(default=False, description="Share the encoder's embedding with the decoder.")
    head: Annotated[BlockSpec, Slot("head")] = Field(description="Maps the last hidden states to the model's output.")
    initializer_range: PositiveFloat = Field(default=0.02, description="Standard deviation of newly initialised weights.")

    @model_validator(mode="before")
    @classmethod
    def _not_of_a_newer_version(cls, document: object) -> object:
        """Of a newer format nothing else is reported: its other fields may be valid there."""
        version = document.get("schema_version") if isinstance(document, Mapping) else None
        if isinstance(version, int) and version > SCHEMA_VERSION:
            expected = f"{SCHEMA_VERSION}, the newest format that this version of pairform reads"
            remedy = "A newer version wrote this document: upgrade pairform."
            raise nested([Problem("schema_version", str(version), expected, remedy)])
        return document

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

    def __repr__(self) -> str:
        stacks = ", ".join(f"{name} of {stack.depth} layers, width {stack.width}" for name, stack in self.stacks.items())
        return f"<ModelSpec {self.assembly}: {stacks}, vocabulary {self.vocabulary}; the whole is in .document()>"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return show_model(self)

    @property
    def stacks(self) -> dict[str, StackSpec]:
        """The stacks that the model has, in the order in which they run, by name."""
        stacks = {"encoder": self.encoder, "decoder": self.decoder}
        return {name: stack for name, stack in stacks.items() if stack is not None}

    @property
    def head_tie(self) -> Literal["encoder", "decoder"] | None:
        """The stack whose embedding table the head shares."""
        return HeadSpec.of(self.head).tie

    @property
    def last(self) -> StackSpec:
        """The stack whose output the head reads."""
        return list(self.stacks.values())[-1]

    def vocabulary_of(self, part: str) -> int:
        """The vocabulary size of a stack."""
        return self.stacks[part].vocabulary or self.vocabulary

    def tokens_of(self, part: str) -> TokenSpec:
        """The special tokens of a stack's input."""
        return self.stacks[part].tokens or self.tokens

    def sizes(self, part: str) -> Sizes:
        """The sizes for the blocks of a stack."""
        sizes = Sizes(self.stacks[part].width, vocabulary=self.vocabulary_of(part), pad=self.tokens_of(part).pad)
        if part == "encoder":
            return replace(sizes, decoder_depth=None if self.decoder is None else self.decoder.depth)
        if self.encoder is None:
            return sizes
        width = self.bridge.source_width(self.encoder.width, sizes.width)
        return replace(sizes, source_width=width, source_keys=self.bridge.source_keys, source_depth=self.encoder.depth)

    @property
    def bridge_sizes(self) -> Sizes:
        """The sizes for the bridge, from the encoder's width to the decoder's."""
        return Sizes(self.last.width, None if self.encoder is None else self.encoder.width)

    @property
    def head_sizes(self) -> Sizes:
        """The sizes for the head."""
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
        if self.encoder is not None and self.encoder.prefixed:
            yield Problem("encoder", "a mask with a prefix", "none: only decoders are told of one", "Set causal to false.")
        if self.stacks:
            yield from (problem.inside("head") for problem in self.head.check(self.head_sizes))
            yield from self._check_tie()
            yield from self._check_pair()
            yield from self.check_tokens()

    def _check_tie(self) -> Iterator[Problem]:
        tie = self.head_tie
        if tie is None:
            return
        if tie not in self.stacks:
            yield Problem("head.tie", repr(tie), f"one of the model's stacks: {', '.join(self.stacks)}")
            return
        table = (self.vocabulary_of(tie), self.stacks[tie].width)
        needed = (self.head_sizes.vocabulary, self.last.width)
        if table != needed:
            yield Problem("head.tie", f"the {tie}'s table of {table}", f"a table of {needed}", "Leave tie out for an own one.")
        elif HeadSpec.of(self.head).transform is not None and self.stacks[tie].embedding.name == "factorised":
            found = f"the {tie}'s factorised table, whose rank is not the width that this head projects"
            yield Problem("head.tie", found, "a table of the stack's width", "Leave tie out for an own one.")

    def _check_pair(self) -> Iterator[Problem]:
        """Checks of encoder-decoders."""
        for part, stack in self.stacks.items():
            if stack.tokens is not None and (part == "decoder" or self.decoder is None):
                yield Problem(f"{part}.tokens", "tokens of its own", "none: `tokens` of the model are this stack's")
        if self.encoder is None or self.decoder is None:
            if self.bridge.name != "none":
                yield Problem("bridge", repr(self.bridge.name), f"none: the assembly is {self.assembly}")
            if self.tie_embeddings:
                yield Problem("tie_embeddings", "true", f"false: the assembly is {self.assembly}")
            return
        yield from (problem.inside("bridge") for problem in self.bridge.check(self.bridge_sizes))
        if self.bridge.source_keys == "separate" and not any(
            branch.name == "merged_attention" for layer in self.decoder.layers for branch in layer.branches.values()
        ):
            yield Problem("bridge", repr(self.bridge.name), "a decoder with merged attention, whose keys these are")
        if self.tie_embeddings:
            tables = [(self.vocabulary_of(part), stack.width) for part, stack in self.stacks.items()]
            if tables[0] != tables[1]:
                found = f"true, with tables of {tables[0]} and {tables[1]}"
                yield Problem(
                    "tie_embeddings", found, "one vocabulary and one width in encoder and decoder", "Set it to false."
                )
            elif self.encoder.embedding != self.decoder.embedding:
                yield Problem("decoder.embedding", "another than the encoder's", "the same: tie_embeddings is true")

    def check_tokens(self) -> Iterator[Problem]:
        """Special tokens outside the vocabulary of a stack that reads them."""
        readers: dict[str, list[str]] = {}  # the stacks that read each set of tokens
        for part, stack in self.stacks.items():
            readers.setdefault("tokens" if stack.tokens is None else f"{part}.tokens", []).append(part)
        for where, parts in readers.items():
            smallest = min(self.vocabulary_of(part) for part in parts)
            for name, token in self.tokens_of(parts[0]).named():
                if token >= smallest:
                    yield Problem(join_path(where, name), str(token), f"an id below the vocabulary's size, {smallest}")
