"""The options of an initialisation."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, cast

import torch
from pydantic import BeforeValidator, Field, Strict, model_validator

from pairform.registry import PositiveInt, Problem, Spec, SpecError, nested, shorten

CrossAttentionMode = Literal["auto", "self_attention", "random", "zero_output"]
SourceAttention = Literal["auto", "separate", "merged"]
NormMode = Literal["copy", "identity"]
DtypeName = Literal["float32", "bfloat16", "float16", "float64"]


def dtype_name(dtype: torch.dtype) -> DtypeName:
    """`float32` for `torch.float32`."""
    return cast(DtypeName, str(dtype).removeprefix("torch."))


class Layers(Spec):
    """The layers of a source to keep: every nth, the first n, or those in a list. Exactly one field is given."""

    every: PositiveInt | None = Field(default=None, description="Every nth layer, from the first on.")
    first: PositiveInt | None = Field(default=None, description="The first n layers.")
    only: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Strict(False)] | None = Field(
        default=None, description="The layers with these numbers, ascending from 0."
    )

    def kept(self, depth: int, where: str) -> list[int]:
        """The kept layers' numbers in the source, of `depth` layers."""
        given = [value for value in (self.every, self.first, self.only) if value is not None]
        if len(given) != 1:
            raise SpecError(Problem(where, f"{len(given)} rules", "one of every, first and only"))
        if self.first is not None and self.first > depth:
            raise SpecError(Problem(where, f"the first {self.first} layers", f"at most {depth}, as the source has"))
        kept = list(range(0, self.first or depth, self.every or 1) if self.only is None else self.only)
        if not kept or kept[-1] >= depth or sorted(set(kept)) != kept:
            raise SpecError(Problem(where, f"the layers {kept}", f"ascending numbers from 0 to {depth - 1}"))
        return kept


def parse_layers(value: Any) -> Any:
    """The document of `Layers` for `every:2`, `first:8`, `0,2,5` and lists."""
    if isinstance(value, list | tuple):
        return {"only": value}
    if not isinstance(value, str):
        return value
    if match := re.fullmatch(r"(every|first):([1-9]\d*)", value.strip()):
        return {match[1]: int(match[2])}
    if re.fullmatch(r"\d+(\s*,\s*\d+)*", value.strip()):
        return {"only": [int(number) for number in value.split(",")]}
    raise nested([Problem("", repr(value), "every:N, first:N or a list such as 0,2,5")])


def parse_dtype(value: Any) -> Any:
    """The name of a torch dtype."""
    return dtype_name(value) if isinstance(value, torch.dtype) else value


class Vocabulary(Spec):
    """Another vocabulary than the sources'. Exactly one of tokens, corpus and tokenizer is given."""

    tokens: str | None = Field(
        default=None, description="File with the tokens to keep, as the tokenizer spells them: one a line, or a JSON list."
    )
    corpus: str | None = Field(
        default=None,
        description="File with texts, one a line, or in the field `text` of each line's JSON object (.jsonl). The `keep` "
        "tokens that are most frequent in it are kept.",
    )
    keep: PositiveInt | None = Field(default=None, description="Size of the vocabulary, with `corpus`.")
    tokenizer: str | None = Field(
        default=None,
        description="Folder of another tokenizer. Tokens that the old one has keep their embedding; others start as the mean "
        "of the embeddings of the old tokens that spell them.",
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        given = [name for name in ("tokens", "corpus", "tokenizer") if getattr(self, name) is not None]
        if len(given) != 1:
            raise nested([Problem("", " and ".join(given) or "nothing", "one of tokens, corpus and tokenizer")])
        if (self.keep is None) != (self.corpus is None):
            found = "no size" if self.keep is None else f"keep = {self.keep} without a corpus"
            raise nested([Problem("keep", found, "the size of the vocabulary to keep, together with corpus")])
        return self


class Options(Spec):
    """How tensors without an exact source are made."""

    source_attention: SourceAttention = Field(
        default="auto",
        description="How the decoder of two sources attends to the encoder: merged with self-attention (T5Gemma 2), or "
        "separate, in cross-attention (T5Gemma). auto: merged for sources of Gemma 3's kind.",
    )
    cross_attention: CrossAttentionMode = Field(
        default="auto",
        description="Where the weights of cross-attention come from. auto: the source's own, if they read an encoder of the "
        "same width; else copied from self-attention where encoder and decoder have one configuration, and random otherwise. "
        "self_attention: copied where shapes allow it, or an error. random: random. zero_output: as auto, with an output "
        "projection of zero, so that the decoder starts exactly as its source. In merged attention it concerns the source's "
        "own keys after the bridge separate_keys.",
    )
    cross_attention_norms: NormMode = Field(
        default="copy",
        description="Norms around cross-attention: copied from those around self-attention, or the identity.",
    )
    encoder_layers: Annotated[Layers | None, BeforeValidator(parse_layers)] = Field(
        default=None, description='Layers of the encoder\'s source to keep: "every:2", "first:8" or a list. Default: all.'
    )
    decoder_layers: Annotated[Layers | None, BeforeValidator(parse_layers)] = Field(
        default=None, description="Layers of the decoder's source to keep. Default: all."
    )
    vocabulary: Vocabulary | None = Field(
        default=None, description="Another vocabulary for both stacks. Default: those of the sources."
    )
    seed: int = Field(default=0, description="Random seed for newly initialised weights: each depends on it and on its name.")
    dtype: Annotated[DtypeName | None, BeforeValidator(parse_dtype)] = Field(
        default=None,
        description="Dtype of all weights. Default: that of the sources; if they differ, the narrowest that holds them all.",
    )

    def layers(self, part: str) -> Layers | None:
        """The choice of layers for a stack, by its name."""
        return self.encoder_layers if part == "encoder" else self.decoder_layers


def read_options(options: Options | None, fields: Mapping[str, Any]) -> Options:
    """`options` with `fields` in place of its own."""
    if options is not None and not isinstance(options, Options):
        raise SpecError(Problem("options", shorten(options), "an Options, or its fields as keywords"))
    if options is not None and not fields:
        return options
    return Options.read({**(options.document() if options else {}), **fields})
