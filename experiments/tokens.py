"""From text to the ids of a model: bytes, or what a file of the library `tokenizers` says."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pairform.experiments.batches import Ids
from pairform.registry import Problem, SpecError

BYTES = 256


@dataclass(frozen=True)
class Tokens:
    """`encode` gives the ids of a text. `spare` are ids that no text has, in order: to mark what was left out of one."""

    encode: Callable[[str], list[int]]
    spare: tuple[int, ...]


def read_tokenizer(file: Path) -> Any:
    """A file as `Tokenizer.save` writes it."""
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError:
        remedy = "`pip install pairform[tokenizers]` brings it."
        raise SpecError(Problem("data.tokenizer", "no package tokenizers", "it", remedy)) from None
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing narrower
        raise SpecError(Problem(f"data.tokenizer {file}", str(error), "a tokenizer.json")) from None


def open_tokens(ids: Ids, file: Path | None) -> Tokens:
    """The tokenizer in `file`, whose ids are the model's; without one, the bytes of UTF-8 as the lowest free ids."""
    if file is None:
        if len(ids.free) < BYTES:
            expected = f"at least {BYTES} ids without a special meaning: one for each byte"
            raise SpecError(Problem("vocabulary", f"{len(ids.free)} ids without a special meaning", expected))
        return Tokens(lambda text: [ids.free[byte] for byte in text.encode("utf-8")], ids.free[BYTES:])
    tokenizer = read_tokenizer(file)
    highest = max(tokenizer.get_vocab().values())
    spare = tuple(token for token in ids.free if token > highest)
    if highest > max(*ids.free, ids.pad, ids.start, ids.end):
        raise SpecError(Problem("vocabulary", "a smaller one than the tokenizer's", f"at least {highest + 1}"))
    return Tokens(lambda text: list(tokenizer.encode(text, add_special_tokens=False).ids), spare)
