"""The embeddings of another tokenizer's tokens, from those of the tokenizer that a model was trained with.

Tokens are compared by the bytes that they stand for, since tokenizers spell a space in different ways: U+2581 in SentencePiece,
U+0120 in GPT-2, nothing at the beginning of a WordPiece token.
"""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

from pairform.assemblies.initialisation.vocabulary.tokenizer_file import BYTE_TOKEN, CONTINUES, TokenizerFile
from pairform.assemblies.preprocessing.tokenizers import parsed_tokenizer

SPACE = "\u2581"
ROLES = ("pad_token", "bos_token", "eos_token", "unk_token", "cls_token", "sep_token", "mask_token")


class Spelling:
    """How a tokenizer's tokens stand for bytes."""

    def __init__(self, file: TokenizerFile, config: dict[str, Any]) -> None:
        self.file = file
        self.roles = {role: name for role in ROLES if (name := token_name(config.get(role))) in file.ids}

    @cached_property
    def by_bytes(self) -> dict[bytes, int]:
        """The token for each sequence of bytes; of several, the first."""
        found: dict[bytes, int] = {}
        for index in sorted(self.file.tokens):
            found.setdefault(self.spelt(index), index)
        return found

    def spelt(self, index: int) -> bytes:
        """The bytes that a token stands for."""
        token = self.file.tokens[index]
        if index in self.file.added:
            return token.encode()
        if self.file.byte_level and all(char in BYTES for char in token):
            return bytes(BYTES[char] for char in token)
        if BYTE_TOKEN.fullmatch(token):
            return bytes([int(token[3:5], 16)])
        if self.file.kind == "WordPiece":
            return (token.removeprefix(CONTINUES) if token.startswith(CONTINUES) else f" {token}").encode()
        return token.replace(SPACE, " ").encode()

    @cached_property
    def _model(self) -> Any:
        return parsed_tokenizer(self.file.content, self.file.place).model

    def pieces(self, spelt: bytes) -> tuple[int, ...]:
        """The tokens that spell these bytes, without those for unknown text."""
        unknown = {self.file.model.get("unk_id"), self.file.ids.get(self.file.model.get("unk_token") or "")}
        if self.file.byte_level:
            word = "".join(CHARACTERS[byte] for byte in spelt)
        else:
            try:
                word = spelt.decode()
            except UnicodeDecodeError:  # part of a character
                found = (self.file.ids.get(f"<0x{byte:02X}>") for byte in spelt)
                return tuple(index for index in found if index is not None)
            word = word.lstrip(" ") if self.file.kind == "WordPiece" else word.replace(" ", SPACE)
        if not word:
            return ()
        return tuple(piece.id for piece in self._model.tokenize(word) if piece.id not in unknown)


def transplanted(new: Spelling, old: Spelling) -> Iterator[tuple[int, ...]]:
    """For each id of the new tokenizer the old ids whose mean embedding it gets: its own token, or those that spell it."""
    same_role = {name: old.file.ids[old.roles[role]] for role, name in new.roles.items() if role in old.roles}
    for index in range(new.file.size):
        token = new.file.tokens.get(index)
        if token is None:
            yield ()
        elif token in same_role:
            yield (same_role[token],)
        elif new.file.added.get(index, {}).get("special"):
            yield (old.file.ids[token],) if token in old.file.ids else ()
        else:
            spelt = new.spelt(index)
            own = old.by_bytes.get(spelt)
            yield old.pieces(spelt) if own is None else (own,)


def token_name(value: Any) -> str | None:
    """A special token in a tokenizer_config.json: a string, or an object with its content."""
    value = value.get("content") if isinstance(value, dict) else value
    return value if isinstance(value, str) else None


def byte_characters() -> dict[int, str]:
    """The character of each byte in tokens of byte-level BPE: printable ones themselves, the others from 256 on."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = (byte for byte in range(256) if byte not in printable)
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + place) for place, byte in enumerate(others)}


CHARACTERS = byte_characters()
BYTES = {char: byte for byte, char in CHARACTERS.items()}
