"""Prompt lookup decoding (Saxena 2023): drafts copied from the text so far and from the source, verified in one pass.

A draft is what followed the last tokens where they occurred before. One forward pass computes the logits after each of its
tokens. The search then proceeds as without drafts, one token at a time, for as long as it chooses the tokens of the draft.
"""

from dataclasses import dataclass
from itertools import takewhile

from jaxtyping import Float, Int
from torch import Tensor

from pairform.assemblies.generation.compiled_step import logits_of
from pairform.assemblies.generation.decoding import Decoding, cacheable, divisible
from pairform.assemblies.modeling.base import ModelParts
from pairform.assemblies.specs.generation import GenerationSpec
from pairform.blocks.attention.retention import Retention
from pairform.blocks.cache import Cache
from pairform.blocks.context import Source
from pairform.blocks.key_values import BUCKET
from pairform.registry import InputError, Problem

LONGEST = BUCKET - 1
"""The longest draft: a pass over it and the token before it fits into the spare capacity of a window's buffers."""
NGRAM = 2
"""The default of `max_matching_ngram_size`, as in transformers."""


@dataclass(frozen=True)
class Lookup:
    """What to look up.

    count: the number of tokens in a draft.
    ngram: the number of last tokens that must have occurred before; if they have not, fewer.
    read:  the encoder's input.
    """

    count: int
    ngram: int
    read: list[int]

    @staticmethod
    def of(settings: GenerationSpec, read: Int[Tensor, "1 source_length"] | None) -> "Lookup":
        count = min(settings.prompt_lookup_num_tokens or 0, LONGEST)
        return Lookup(count, settings.max_matching_ngram_size or NGRAM, [] if read is None else read[0].tolist())

    def draft(self, known: list[int], most: int) -> list[int]:
        """Up to `most` tokens that followed the longest match of the last tokens in `known`: at its first occurrence in the
        encoder's input, else in `known` itself, where the first one has the most tokens after it."""
        count = min(self.count, most)
        for size in range(min(self.ngram, len(known)), 0, -1):
            last = known[-size:]
            for text in (self.read, known):
                places = (place for place in range(len(text) - size) if text[place : place + size] == last)
                if (place := next(places, None)) is not None:
                    return text[place + size :][:count]
        return []


class LookupDecoding(Decoding):
    """`Decoding` of one row that verifies drafts.

    verified: the logits after the last token that was known, and after each token of the draft.
    checked:  the tokens so far, with the draft.
    """

    def __init__(
        self,
        model: ModelParts,
        source: Source | None,
        cache: Cache,
        first: Int[Tensor, "1 1"] | None,
        lookup: Lookup,
        *,
        length: int,
        compile: bool = False,
    ) -> None:
        super().__init__(model, source, cache, first, length=length, compile=compile)
        self.lookup = lookup
        self.verified: Float[Tensor, "positions vocabulary"] | None = None
        self.checked: list[int] = []

    def __call__(self, tokens: Int[Tensor, "1 length"], pixels: Tensor | None = None) -> Float[Tensor, "1 vocabulary"]:
        """The logits of the next token after `tokens`, which the pass over the last draft may have computed."""
        if self.prompt is None:
            return super().__call__(tokens, pixels)
        known: list[int] = tokens[0].tolist()
        if self.verified is None or known != self.checked[: len(known)]:
            self.finish(len(known) - 1)
            draft = self.lookup.draft(known, self.places.shape[1] - len(known) - 1)  # the last token is never processed
            vocabulary = self.model.spec.vocabulary_of("decoder")
            self.checked = known + list(takewhile(lambda token: token < vocabulary, draft))
            self.verified = self.verify(tokens)
        return self.verified[len(known) - len(self.checked) - 1][None]

    def verify(self, tokens: Int[Tensor, "1 length"]) -> Float[Tensor, "positions vocabulary"]:
        """The logits of one pass over the tokens that are not in the cache, and the draft."""
        assert self.cache is not None
        begin, end = self.cache.length, len(self.checked)
        if end == tokens.shape[1]:
            return super().__call__(tokens)
        hidden = self.run(tokens.new_tensor([self.checked]), begin, end, None)
        return logits_of(self.model, hidden.transpose(0, 1))

    def finish(self, length: int) -> None:
        """Remove the tokens of the draft that were not chosen from the cache."""
        assert self.cache is not None
        self.cache.crop(min(length, self.cache.length))


def check_lookup(settings: GenerationSpec, model: ModelParts, cache: Cache | None, rows: int) -> Cache:
    """The cache of a call with drafts.

    Raises:
        InputError: drafts are not supported with these settings, this model or this batch.
    """
    assert model.decoder is not None
    name = "prompt_lookup_num_tokens"
    if rows > 1 or settings.num_beams > 1 or settings.num_return_sequences > 1:
        found = f"{rows} rows, num_beams={settings.num_beams}, num_return_sequences={settings.num_return_sequences}"
        raise InputError(Problem(name, found, "one row, without beams", f"Leave {name} out."))
    if model.all_finished is not None:
        raise InputError(Problem(name, "a model that several processes share", "a model of one process"))
    recurrent = any(isinstance(module, Retention) for module in model.decoder.modules())
    if recurrent or not (cacheable(model) and divisible(model)):
        found = (
            "a decoder with recurrent states, a prefix, tokens that attend to later ones, or RoPE that depends on the length"
        )
        raise InputError(Problem(name, found, "a decoder whose tokens depend on earlier ones only", f"Leave {name} out."))
    if cache is None:
        raise InputError(Problem(name, "use_cache=False", "a KV cache"))
    return cache
