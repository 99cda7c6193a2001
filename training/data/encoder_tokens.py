"""Sources in the token ids of an encoder that has a tokenizer of its own.

Data is stored in the decoder's tokens, whatever the encoder. A source is decoded to text and encoded again when it is read,
with the special tokens that the encoder's tokenizer puts around a text, as `pairform generate --text` does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pairform.assemblies.specs.model import ModelSpec
from pairform.registry import Problem, SpecError
from pairform.training.data.batches import Ids
from pairform.training.data.marks import marks_of
from pairform.training.data.objectives import Marks, Objective, SpanCorruption
from pairform.training.data.tokenizer_files import Tokenizer
from pairform.training.data.tokens import Tokens, open_tokens

PROBE = "a"
"""A text of at least one token in every tokenizer."""
HALVED = "\ufffd"
"""What decoders make of a character that a window has cut in half."""


@dataclass(frozen=True)
class EncoderTokens:
    """Turns sources from the decoder's token ids into the encoder's.

    tokens:        how the data is encoded.
    own:           how the encoder's text is encoded.
    sentinels:     of the data, each with the encoder's.
    before, after: special tokens around a text.
    """

    tokens: Tokens
    own: Tokens
    sentinels: tuple[tuple[int, int], ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    @classmethod
    def of(
        cls,
        spec: ModelSpec,
        tokens: Tokens,
        tokenizer: Tokenizer,
        objective: Objective | None = None,
        marks: Marks | None = None,
    ) -> "EncoderTokens":
        """Those of an encoder-decoder.

        tokenizer: the encoder's.
        objective: whose sources are read, and what it adds to the data's texts; None for sources without sentinels.

        Raises:
            SpecError: the encoder's vocabulary is smaller than its tokenizer's, or has too few sentinels.
        """
        ids = Ids.of(spec, "encoder")
        sentinels: list[tuple[int, int]] = []
        try:
            own = open_tokens(ids, tokenizer)
            if isinstance(objective, SpanCorruption) and marks is not None:
                theirs = marks_of(objective, ids, own).sentinels
                sentinels = [*zip(marks.sentinels.tolist(), theirs.tolist(), strict=False)]
        except SpecError as error:
            raise SpecError([problem.inside("encoder") for problem in error.problems]) from None
        return cls(tokens, own, tuple(sentinels), *frame(tokenizer))

    @cached_property
    def stands_for(self) -> dict[int, int]:
        """`sentinels` as a table."""
        return dict(self.sentinels)

    def __call__(self, source: np.ndarray, longest: int, *, special: bool = False, last: bool = False) -> np.ndarray:
        """A source, `[length]`, in the encoder's tokens, int32; empty if the source is.

        Args:
            source: In the decoder's tokens.
            longest: Most tokens of the result, with those around the text.
            special: Spell the decoder's special tokens out, as in conversations; by default, they are left out.
            last: Keep the last tokens of a longer text, which its continuation follows, instead of the first.
        """
        parts: list[np.ndarray] = [np.zeros(0, np.int32)]
        ids, begin = source.tolist(), 0
        for place, token in enumerate([*ids, None]):
            if token is None or token in self.stands_for:
                text = self.tokens.decode(ids[begin:place], special=special).strip(HALVED)
                parts.append(self.own.encode(text))
                if token is not None:
                    parts.append(np.array([self.stands_for[token]], np.int32))
                begin = place + 1
        return self.framed(np.concatenate(parts), longest, last=last)

    def framed(self, text: np.ndarray, longest: int, *, last: bool = False) -> np.ndarray:
        """At most `longest` tokens of a text in the encoder's tokens, with the special ones around it; empty if the text is."""
        room = max(longest - len(self.before) - len(self.after), 1)
        kept = text[-room:] if last else text[:room]
        return np.array([*self.before, *kept, *self.after] if len(kept) else [], np.int32)[: max(longest, 1)]


def frame(tokenizer: Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The special tokens that a tokenizer puts before and after a text."""
    plain: Sequence[int] = tokenizer.encode(PROBE, add_special_tokens=False).ids
    whole: Sequence[int] = tokenizer.encode(PROBE, add_special_tokens=True).ids
    for begin in range(len(whole) - len(plain) + 1):
        if plain and whole[begin : begin + len(plain)] == plain:
            return tuple(whole[:begin]), tuple(whole[begin + len(plain) :])
    found = f"a tokenizer that makes {len(whole)} tokens of {PROBE!r}, and {len(plain)} without special tokens"
    raise SpecError(Problem("encoder.tokenizer", found, "one that adds special tokens before and after a text"))
