"""The options of an initialisation."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast

import torch
from pydantic import BeforeValidator, Field, Strict

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

    every: PositiveInt | None = None
    first: PositiveInt | None = None
    only: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Strict(False)] | None = None

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


class Options(Spec):
    """How tensors without an exact source are made.

    source_attention:      how the pair of two sources reads the encoder: merged with self-attention (as T5Gemma 2), or in a
                           cross-attention of its own (as T5Gemma). auto is merged for sources of Gemma 3's kind.
    cross_attention:       auto keeps the source's own if that read an encoder of the same width, else copies
                           self-attention's weights where encoder and decoder are of one configuration, and draws the rest;
                           self_attention copies where shapes allow it, or says why they do not; random draws; zero_output
                           is auto with an output projection of zero, so that the decoder starts exactly as its source.
                           In merged attention it concerns the source's own keys behind the bridge separate_keys.
    cross_attention_norms: the norms around it: copied from those around self-attention, or the identity.
    encoder_layers:        the source layers to keep: a `Layers`, its fields, "every:2", "first:8", or a list; absent, all.
    seed:                  fresh values depend on it and on the tensor's name alone.
    dtype:                 of every tensor written, by name or torch's own; absent, the sources' own, or where
                           they differ the narrowest that holds them all; the plan's edits say so.
    """

    source_attention: SourceAttention = "auto"
    cross_attention: CrossAttentionMode = "auto"
    cross_attention_norms: NormMode = "copy"
    encoder_layers: Annotated[Layers | None, BeforeValidator(parse_layers)] = None
    decoder_layers: Annotated[Layers | None, BeforeValidator(parse_layers)] = None
    seed: int = 0
    dtype: Annotated[DtypeName | None, BeforeValidator(parse_dtype)] = None

    def layers(self, part: str) -> Layers | None:
        return self.encoder_layers if part == "encoder" else self.decoder_layers


def read_options(options: Options | None, fields: Mapping[str, Any]) -> Options:
    """`options` with `fields` in place of its own."""
    if options is not None and not isinstance(options, Options):
        raise SpecError(Problem("options", shorten(options), "an Options, or its fields as keywords"))
    if options is not None and not fields:
        return options
    return Options.read({**(options.document() if options else {}), **fields})
