"""A tokenizer.json as data: its tokens, and the same tokenizer with some of them only.

In the smaller tokenizer, a text that needs none of the missing tokens is encoded as before.
"""

import itertools
import json
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from pairform.registry import CheckpointError, Problem, parse_json, shorten

BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
MODELS = ("BPE", "Unigram", "WordPiece", "WordLevel")
CONTINUES = "##"
"""Begins a WordPiece token inside a word."""


class TokenizerFile:
    """A tokenizer.json. `place` names it in errors; tokens from the id `limit` on, which the model does not have, are left out.

    Raises:
        CheckpointError: it is no tokenizer.json, or one of another model than `MODELS`.
    """

    def __init__(self, content: bytes, place: str, limit: int | None = None) -> None:
        self.content, self.place = content, place
        try:
            self.document: dict[str, Any] = parse_json(content.decode("utf-8"))
            self.model: dict[str, Any] = self.document["model"]
            self.kind: str = self.model.get("type") or ("Unigram" if isinstance(self.model["vocab"], list) else "BPE")
            if self.kind not in MODELS:
                raise self.damaged(f"a model of the type {shorten(self.kind)}")
            pieces: Iterable[tuple[str, int]] = (
                ((piece, index) for index, (piece, _) in enumerate(self.model["vocab"]))
                if self.kind == "Unigram"
                else self.model["vocab"].items()
            )
            known = range(sys.maxsize if limit is None else limit)
            added = self.document.get("added_tokens") or ()
            self.added: dict[int, dict[str, Any]] = {entry["id"]: entry for entry in added if entry["id"] in known}
            self.tokens: dict[int, str] = {index: piece for piece, index in pieces if index in known}
            self.tokens |= {index: entry["content"] for index, entry in self.added.items()}
            self.ids: dict[str, int] = {token: index for index, token in self.tokens.items()}
            if not all(isinstance(token, str) and isinstance(index, int) for index, token in self.tokens.items()):
                raise self.damaged("tokens that are no strings")
        except CheckpointError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise self.damaged(f"{type(error).__name__}: {error}") from None

    def damaged(self, found: str) -> CheckpointError:
        expected = f"a tokenizer.json of the tokenizers library, of the types {', '.join(MODELS)}"
        return CheckpointError(Problem(self.place, found, expected))

    @property
    def size(self) -> int:
        """One more than the largest id."""
        return max(self.tokens, default=-1) + 1

    @cached_property
    def byte_level(self) -> bool:
        """Whether each byte of a text is a character of tokens, as in GPT-2."""
        return "ByteLevel" in kinds(self.document.get("pre_tokenizer")) + kinds(self.document.get("decoder"))

    @cached_property
    def required(self) -> frozenset[int]:
        """The tokens without which the tokenizer fails: special ones, those for unknown text, and bytes."""
        found = {index for index, entry in self.added.items() if entry.get("special")}
        found |= {self.ids[token] for token, _ in inserted(self.document.get("post_processor")) if token in self.ids}
        unknown = self.model.get("unk_id")
        if isinstance(unknown, int):
            found.add(unknown)
        if self.model.get("unk_token") in self.ids:
            found.add(self.ids[self.model["unk_token"]])
        if self.byte_level:
            found |= {index for token, index in self.ids.items() if len(token) == 1 and index not in self.added}
        else:
            found |= {index for token, index in self.ids.items() if BYTE_TOKEN.fullmatch(token)}
        return frozenset(found)

    def needed(self, index: int) -> set[int]:
        """A token with those that the tokenizer makes it of, and those of its characters."""
        token = self.tokens[index]
        if index in self.added:
            return {index}
        found = {index} | {self.ids[char] for char in token if char in self.ids}
        if self.kind == "WordPiece":
            found |= {self.ids[CONTINUES + char] for char in token if CONTINUES + char in self.ids}
        if self.kind == "BPE":
            found |= {self.ids[part] for part in self.merged(token) if part in self.ids}
        return found

    @cached_property
    def merges(self) -> dict[tuple[str, str], int]:
        """The rank of each merge; the smallest is applied first."""
        try:
            pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in self.model["merges"]]
            return {(left, right): rank for rank, (left, right) in enumerate(pairs)}
        except (KeyError, TypeError, ValueError) as error:
            raise self.damaged(f"merges: {error}") from None

    def merged(self, token: str) -> Iterator[str]:
        """Every part that merging makes on the way from a token's characters to the token."""
        parts = list(token)
        while len(parts) > 1:
            ranked = [(self.merges.get(pair, len(self.merges)), place) for place, pair in enumerate(itertools.pairwise(parts))]
            rank, place = min(ranked)
            if rank == len(self.merges):
                return
            parts[place : place + 2] = [parts[place] + parts[place + 1]]
            yield parts[place]

    def keeping(self, kept: Sequence[int]) -> bytes:
        """The file of a tokenizer whose token i is token `kept[i]` of this one."""
        new = {old: index for index, old in enumerate(kept)}
        model = dict(self.model)
        if self.kind == "Unigram":
            # ids are places in the list, so that an added token inside it needs a piece too
            pieces = self.model["vocab"]
            model["vocab"] = [
                pieces[old] if old < len(pieces) else [self.tokens.get(old, f"<unused {old}>"), 0.0] for old in kept
            ]
            if isinstance(model.get("unk_id"), int):
                model["unk_id"] = new[model["unk_id"]]
        else:
            model["vocab"] = {token: new[old] for token, old in self.model["vocab"].items() if old in new}
        if self.kind == "BPE":
            known = model["vocab"]
            model["merges"] = [[*pair] for pair in self.merges if all(part in known for part in (*pair, "".join(pair)))]
        document = self.document | {
            "model": model,
            "added_tokens": [entry | {"id": new[old]} for old, entry in sorted(self.added.items()) if old in new],
            "post_processor": renumbered(self.document.get("post_processor"), self.ids, new),
            "truncation": None,
            "padding": None,
        }
        return json.dumps(document, ensure_ascii=False, indent=2).encode()


def kinds(part: Any) -> list[str]:
    """The types of a pre-tokenizer or decoder, and of those in a sequence of them."""
    if not isinstance(part, Mapping):
        return []
    inner = part.get("pretokenizers") or part.get("decoders") or part.get("processors") or []
    return [str(part.get("type")), *(kind for each in inner for kind in kinds(each))]


def inserted(processor: Any) -> Iterator[tuple[str, int]]:
    """The tokens that a post-processor adds to texts, with their ids."""
    if not isinstance(processor, Mapping):
        return
    for each in processor.get("processors") or ():
        yield from inserted(each)
    for end in ("sep", "cls"):
        if isinstance(processor.get(end), list):
            yield tuple(processor[end])
    for entry in (processor.get("special_tokens") or {}).values():
        yield from zip(entry["tokens"], entry["ids"], strict=True)


def renumbered(processor: Any, ids: Mapping[str, int], new: Mapping[int, int]) -> Any:
    """A post-processor with the new ids of the tokens that it adds."""
    if not isinstance(processor, Mapping):
        return processor
    made = dict(processor)
    if made.get("processors"):
        made["processors"] = [renumbered(each, ids, new) for each in made["processors"]]
    for end in ("sep", "cls"):
        if isinstance(made.get(end), list):
            token, old = made[end]
            made[end] = [token, new[ids.get(token, old)]]
    if isinstance(made.get("special_tokens"), Mapping):
        made["special_tokens"] = {
            name: entry | {"ids": [new[old] for old in entry["ids"]]} for name, entry in made["special_tokens"].items()
        }
    return made


def with_needed(tokenizer: TokenizerFile, wanted: Collection[int]) -> set[int]:
    """`wanted` with all tokens that it needs."""
    found = set(tokenizer.required)
    for index in wanted:
        if index in tokenizer.tokens:
            found |= tokenizer.needed(index)
        else:
            found.add(index)
    return found
