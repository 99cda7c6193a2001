"""From text to token ids: by a tokenizer of the library `tokenizers`, or bytes."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pairform.registry import Problem, SpecError
from pairform.training.data.batches import Ids
from pairform.training.data.tokenizer_files import Tokenizer
from pairform.training.data.tokenizer_files import read_tokenizer as read_tokenizer

BYTES = 256


@dataclass(frozen=True)
class Tokens:
    """How text is encoded.

    bytes_:    the id of each byte, if there is no tokenizer.
    spare:     ids that do not occur in text, in order; used as sentinels.
    tokenizer: used instead of bytes.
    """

    bytes_: tuple[int, ...]
    spare: tuple[int, ...]
    tokenizer: Tokenizer | None = None

    @functools.cached_property
    def table(self) -> np.ndarray:
        """`bytes_` as an array."""
        return np.array(self.bytes_, np.int32)

    def decode(self, ids: Sequence[int], *, special: bool = False) -> str:
        """The text of token ids. special: with special tokens of the tokenizer, as they are spelt."""
        if self.tokenizer is not None:
            return str(self.tokenizer.decode(list(ids), skip_special_tokens=not special))
        number = {token: byte for byte, token in enumerate(self.bytes_)}
        return bytes(number[token] for token in ids if token in number).decode("utf-8", "replace")

    def encode(self, text: str) -> np.ndarray:
        """Token ids as an array, which takes less memory than a list."""
        if self.tokenizer is None:
            return self.table[np.frombuffer(text.encode("utf-8"), np.uint8)]
        return np.array(self.tokenizer.encode(text, add_special_tokens=False).ids, np.int32)


def open_tokens(ids: Ids, tokenizer: Tokenizer | None) -> Tokens:
    """Encode with `tokenizer`, whose ids are the model's, or else as UTF-8 bytes in the lowest free ids.

    Raises:
        SpecError: the vocabulary is too small.
    """
    if tokenizer is None:
        if len(ids.free) < BYTES:
            expected = f"at least {BYTES} ids without a special meaning: one for each byte"
            remedy = "Name the model's tokenizer.json in data.tokenizer."
            raise SpecError(Problem("vocabulary", f"{len(ids.free)} ids without a special meaning", expected, remedy))
        return Tokens(ids.free[:BYTES], ids.free[BYTES:])
    highest = max(tokenizer.get_vocab().values(), default=-1)
    if highest > max((*ids.free, ids.pad, ids.start, ids.end)):
        raise SpecError(Problem("vocabulary", "a vocabulary smaller than the tokenizer's", f"at least {highest + 1}"))
    return Tokens((), tuple(token for token in ids.free if token > highest), tokenizer)
