"""Sources and targets that are texts, in a model's token ids."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from pairform.assemblies.specs.model import ModelSpec
from pairform.training.data.batches import MOST_TOKENS, Ids
from pairform.training.data.encoder_tokens import EncoderTokens
from pairform.training.data.file_data import Files
from pairform.training.data.tokens import Tokens, open_tokens


@dataclass(frozen=True)
class TextEncoding:
    """How a model reads sources and writes targets.

    encoder: of an encoder with a tokenizer of its own.
    end:     the end token.
    """

    tokens: Tokens
    encoder: EncoderTokens | None
    end: int

    @classmethod
    def of(cls, spec: ModelSpec, files: Files) -> Self:
        """With the tokenizers of the data; `SpecError` if the vocabulary is too small for one."""
        own = files.encoder_tokenizer if spec.assembly == "encoder_decoder" else None
        ids = Ids.of(spec, None if own is None else "decoder")
        tokens = open_tokens(ids, files.tokenizer)
        return cls(tokens, None if own is None else EncoderTokens.of(spec, tokens, own), ids.end)

    def source(self, text: str, longest: int = MOST_TOKENS) -> list[int]:
        """At most `longest` tokens of a source; none if the text has none."""
        if self.encoder is None:
            return self.tokens.encode(text)[:longest].tolist()
        return self.encoder.framed(self.encoder.own.encode(text), longest).tolist()

    def words(self, texts: Sequence[str]) -> tuple[list[int], list[tuple[int, int]]]:
        """The tokens of a source of several words, joined by spaces; and where those of each word begin and end."""
        own = self.tokens
        before: tuple[int, ...] = ()
        after: tuple[int, ...] = ()
        if self.encoder is not None:
            own, before, after = self.encoder.own, self.encoder.before, self.encoder.after
        tokens = list(before)
        places: list[tuple[int, int]] = []
        for number, text in enumerate(texts):
            begin = len(tokens)
            tokens += own.encode(f" {text}" if number else text).tolist()
            places.append((begin, len(tokens)))
        return [*tokens, *after], places

    def target(self, text: str) -> list[int]:
        """The tokens of a target, without an end token."""
        return self.tokens.encode(text).tolist()
