"""From batches of items to arrays of token ids."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from pairform.assemblies.preprocessing.chat_template import ChatTemplate
from pairform.assemblies.preprocessing.tokenizers import parsed_tokenizer
from pairform.training.data.corpus.chat import pairs
from pairform.training.data.corpus.documents import Batch, cut
from pairform.training.data.corpus.manifest import token_dtype
from pairform.training.data.corpus.setup import Setup
from pairform.training.data.corpus.spec import SourceSpec
from pairform.training.data.files import decoded, read_object, text_at
from pairform.training.data.tokenizer_files import Tokenizer

Texts = tuple[str, ...]
"""The text of a document, or the two of a pair."""


class Encoded(NamedTuple):
    """The documents of a batch.

    items:   index in the source of the item that each document comes from, int64 [documents].
    tokens:  for each stream the token ids of all documents, in the shards' dtype.
    lengths: for each stream the number of tokens of each document, int64 [documents].
    more:    whether the last document continues in the next batch.
    """

    items: np.ndarray
    tokens: tuple[np.ndarray, ...]
    lengths: tuple[np.ndarray, ...]
    more: bool


class Encoder:
    """Encodes batches of every source of a corpus. `SpecError` if the tokenizer or the template cannot be read."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.dtype = token_dtype(setup.vocabulary)
        self.tokenizer: Tokenizer | None = None
        if setup.tokenizer is not None:
            self.tokenizer = parsed_tokenizer(setup.tokenizer, "tokenizer")
        self.template = None if setup.template is None else ChatTemplate(setup.template, dict(setup.special))

    def encode(self, batch: Batch) -> Encoded:
        source = self.setup.sources[batch.source]
        documents = list(self.documents(batch, source))
        items = np.fromiter((item for item, _ in documents), np.int64, len(documents))
        streams = 1 if source.kind == "text" else 2
        special = source.special_tokens or source.kind == "chat"
        parts = [self.tokens([texts[stream] for _, texts in documents], special) for stream in range(streams)]
        return Encoded(items, tuple(tokens for tokens, _ in parts), tuple(lengths for _, lengths in parts), batch.more)

    def documents(self, batch: Batch, source: SourceSpec) -> Iterator[tuple[int, Texts]]:
        """Each document with the index of its item; blank lines have none."""
        for position, item in enumerate(batch.items):
            if isinstance(item, str):
                yield batch.first + position, (item,)
            elif item.strip():
                where = batch.place(position)
                row = read_object(decoded(item, where), where)
                for texts in self.texts(row, source, where):
                    yield batch.first + position, texts

    def texts(self, row: dict[str, Any], source: SourceSpec, where: str) -> Sequence[Texts]:
        """The documents in an object."""
        if self.template is not None and source.messages is not None:
            place = f"{where}: {source.messages}"
            return pairs(self.template, row.get(source.messages), place, every=source.answers == "all")
        return [tuple(text_at(where, row, name) for name in source.fields)]

    def tokens(self, texts: Sequence[str], special: bool) -> tuple[np.ndarray, np.ndarray]:
        """The ids of all texts, and the number of each one's. special: whether special tokens in them become their ids."""
        if self.tokenizer is None:
            encoded = [text.encode() for text in texts]
            return np.frombuffer(b"".join(encoded), np.uint8), np.fromiter(map(len, encoded), np.int64, len(encoded))
        self.tokenizer.encode_special_tokens = not special
        pieces = [cut(text) for text in texts]
        arrays = [np.empty(0, self.dtype)]
        for piece in itertools.chain.from_iterable(pieces):  # one by one: several at once would occupy every core
            (found,) = self.tokenizer.encode_batch_fast([piece], add_special_tokens=False)
            arrays.append(np.array(found.ids, self.dtype))
        sums = np.cumsum([len(array) for array in arrays])
        ends = np.cumsum([0, *map(len, pieces)])
        return np.concatenate(arrays), np.diff(sums[ends])
