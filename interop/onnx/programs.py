"""The programs that become ONNX files: modules with tensors as inputs and outputs, and the names that optimum gives these."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pairform.assemblies.modeling.base import ModelParts
from pairform.assemblies.modeling.inputs import StackInputs
from pairform.blocks.cache import Cache
from pairform.blocks.context import Source
from pairform.blocks.key_values import KeyValues, OwnKeys, Place

Axes = dict[int, str]
"""The names of the axes of a tensor whose sizes vary."""
TOKENS: Axes = {0: "batch", 1: "sequence"}
EARLIER: Axes = {0: "batch", 2: "past_sequence"}


class GrownKeys(OwnKeys):
    """Keys and values that are concatenated, not written into buffers: a program has no state. No window forgets any."""

    def write(self, keys: Tensor, values: Tensor, room: int = 0) -> KeyValues:
        self.buffers = self.buffers.then(keys, values)
        return self.buffers


@dataclass(frozen=True)
class Program:
    """A module to export.

    example: its inputs, by name, in order.
    axes:    of each input, those whose sizes vary.
    outputs: their names, in order.
    """

    module: nn.Module
    example: Mapping[str, Tensor]
    axes: Mapping[str, Axes]
    outputs: Sequence[str]


class Encoder(nn.Module):
    """From token IDs to the encoder's output, and with a head to what that makes of it."""

    def __init__(self, model: ModelParts) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: Int[Tensor, "batch sequence"],
        attention_mask: Int[Tensor, "batch sequence"],
        token_type_ids: Int[Tensor, "batch sequence"] | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        model, valid = self.model, attention_mask.bool()
        assert model.encoder is not None
        hidden: Tensor = model.encoder(StackInputs(input_ids, valid=valid, token_types=token_type_ids)).hidden
        if model.decoder is not None or model.spec.head.name == "none":
            return hidden
        return hidden, model.head(model.lowered(hidden), valid, model.tied())


class Decoder(nn.Module):
    """From token IDs and earlier keys to logits and keys. The order of keys and values is that of `names`."""

    def __init__(self, model: ModelParts, own: Sequence[Place], source: Sequence[Place]) -> None:
        super().__init__()
        self.model, self.own, self.source = model, own, source

    def run(self, inputs: StackInputs, source: Source | None, cache: Cache) -> tuple[Tensor, list[Tensor]]:
        assert self.model.decoder is not None
        hidden = self.model.decoder(inputs, source=source, cache=cache).hidden
        logits: Tensor = self.model.head(self.model.lowered(hidden), None, self.model.tied())
        return logits, [part for place in self.own for part in tensors(cache.own[place].buffers)]


class FirstDecoder(Decoder):
    """Reads the encoder's output and the beginning of the target."""

    def forward(
        self,
        encoder_attention_mask: Int[Tensor, "batch source"],
        input_ids: Int[Tensor, "batch sequence"],
        encoder_hidden_states: Float[Tensor, "batch source width"],
    ) -> tuple[Tensor, ...]:
        source = self.model.source(encoder_hidden_states, encoder_attention_mask.bool())
        cache = Cache(own={place: empty(self.model, place, input_ids) for place in self.own})
        logits, own = self.run(StackInputs(input_ids), source, cache)
        return logits, *own, *(part for place in self.source for part in tensors(cache.source[place]))


class NextDecoder(Decoder):
    """Reads keys and values of the source and of earlier tokens, and new tokens."""

    def forward(
        self,
        encoder_attention_mask: Int[Tensor, "batch source"],
        input_ids: Int[Tensor, "batch sequence"],
        *past: Float[Tensor, "batch kv_heads length head_dim"],
    ) -> tuple[Tensor, ...]:
        count = 2 * len(self.own)
        cache = cache_of(self.own, past[:count])
        cache.source = dict(zip(self.source, paired(past[count:]), strict=True))
        # its hidden states are not read: keys and values are in the cache
        source = Source(past[-1][:, 0], encoder_attention_mask.bool())
        logits, own = self.run(StackInputs(input_ids), source, cache)
        return logits, *own


class LoneDecoder(Decoder):
    """A decoder without an encoder: one program for prompts, whose keys are empty, and for later tokens."""

    def forward(
        self,
        input_ids: Int[Tensor, "batch sequence"],
        attention_mask: Int[Tensor, "batch total"],
        position_ids: Int[Tensor, "batch sequence"],
        *past: Float[Tensor, "batch kv_heads length head_dim"],
    ) -> tuple[Tensor, ...]:
        inputs = StackInputs(input_ids, valid=attention_mask.bool(), positions=position_ids)
        logits, own = self.run(inputs, None, cache_of(self.own, past))
        return logits, *own


def tensors(held: KeyValues) -> tuple[Tensor, Tensor]:
    return held.keys, held.values


def paired(past: Sequence[Tensor]) -> list[KeyValues]:
    return [KeyValues(keys, values) for keys, values in zip(past[::2], past[1::2], strict=True)]


def cache_of(own: Sequence[Place], past: Sequence[Tensor]) -> Cache:
    cache = Cache(own={place: GrownKeys(held) for place, held in zip(own, paired(past), strict=True)})
    cache.length = past[0].shape[2]
    return cache


def empty(model: ModelParts, place: Place, ids: Tensor) -> OwnKeys:
    """Keys and values of no tokens."""
    assert model.decoder is not None
    block: Any = model.decoder.layers[place[0]].get_submodule(f"{place[1]}.block")
    weight = next(block.parameters())
    keys, values = (weight.new_zeros((ids.shape[0], block.kv_heads, 0, size)) for size in sizes(block))
    return GrownKeys(KeyValues(keys, values))


def sizes(block: Any) -> tuple[int, int]:
    """The channels of a key and of a value."""
    return block.head_dim, getattr(block, "value_dim", block.head_dim)


def programs(model: ModelParts, own: Sequence[Place], source: Sequence[Place]) -> dict[str, Program]:
    """The programs of a model, by file name.

    own, source: where the decoder keeps keys and values of its own tokens and of the source's.
    """
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 8, (2, 5), generator=generator)
    mask = torch.ones_like(ids)
    if model.decoder is None:
        return {"model.onnx": encoder_program(model, ids, mask)}
    if model.encoder is None:
        past = examples(model, own, 3)
        names = key_names("past_key_values", own, "")
        places = torch.arange(3, 8).expand(2, -1)
        example = {"input_ids": ids, "attention_mask": torch.ones(2, 8, dtype=torch.long), "position_ids": places}
        axes = {"input_ids": TOKENS, "attention_mask": {0: "batch", 1: "total_sequence"}, "position_ids": TOKENS}
        lone = LoneDecoder(model, own, source)
        return {
            "model.onnx": Program(
                lone,
                example | dict(zip(names, past, strict=True)),
                axes | dict.fromkeys(names, EARLIER),
                ["logits", *key_names("present", own, "")],
            )
        }
    width = model.encoder.spec.width
    read: dict[str, Axes] = {"encoder_attention_mask": {0: "batch", 1: "encoder_sequence"}, "input_ids": TOKENS}
    masks = {"encoder_attention_mask": torch.ones(2, 7, dtype=torch.long), "input_ids": ids}
    hidden = torch.randn((2, 7, width), generator=generator)
    earlier, theirs = (key_names("past_key_values", places, kind) for places, kind in ((own, ".decoder"), (source, ".encoder")))
    past = [*examples(model, own, 3), *examples(model, source, 7)]
    axes = dict.fromkeys(earlier, EARLIER) | {name: {0: "batch", 2: "encoder_sequence"} for name in theirs}
    own_keys, source_keys = key_names("present", own, ".decoder"), key_names("present", source, ".encoder")
    return {
        "encoder_model.onnx": encoder_program(model, ids, mask),
        "decoder_model.onnx": Program(
            FirstDecoder(model, own, source),
            masks | {"encoder_hidden_states": hidden},
            read | {"encoder_hidden_states": read["encoder_attention_mask"]},
            ["logits", *own_keys, *source_keys],
        ),
        "decoder_with_past_model.onnx": Program(
            NextDecoder(model, own, source),
            masks | dict(zip([*earlier, *theirs], past, strict=True)),
            read | axes,
            ["logits", *own_keys],
        ),
    }


def encoder_program(model: ModelParts, ids: Tensor, mask: Tensor) -> Program:
    assert model.encoder is not None
    example = {"input_ids": ids, "attention_mask": mask}
    if model.encoder.spec.token_types is not None:
        example |= {"token_type_ids": torch.zeros_like(ids)}
    made = "sentence_embedding" if model.spec.head.name in ("sentence_embedding", "contrastive") else "logits"
    headless = model.decoder is not None or model.spec.head.name == "none"
    return Program(
        Encoder(model), example, dict.fromkeys(example, TOKENS), ["last_hidden_state", *([] if headless else [made])]
    )


def key_names(prefix: str, places: Sequence[Place], kind: str) -> list[str]:
    """As optimum names keys and values: `past_key_values.0.decoder.key`."""
    return [f"{prefix}.{layer}{kind}.{part}" for layer, _ in places for part in ("key", "value")]


def examples(model: ModelParts, places: Sequence[Place], length: int) -> list[Tensor]:
    """Keys and values of `length` tokens in two rows."""
    assert model.decoder is not None
    made = []
    for layer, name in places:
        block: Any = model.decoder.layers[layer].get_submodule(f"{name}.block")
        made += [torch.randn(2, block.kv_heads, length, size) for size in sizes(block)]
    return made
