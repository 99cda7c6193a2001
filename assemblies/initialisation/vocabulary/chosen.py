"""The tokens of a vocabulary that are kept: those in a list, or the most frequent ones of a corpus."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pairform.assemblies.initialisation.options import Vocabulary
from pairform.assemblies.initialisation.vocabulary.tokenizer_file import TokenizerFile, with_needed
from pairform.assemblies.preprocessing.tokenizers import parsed_tokenizer
from pairform.registry import InputError, Problem, SpecError, open_regular, parse_json, read_text, shorten

LIST_BYTES = 64 << 20
LINE_BYTES = 16 << 20
"""Largest list of tokens, and longest line of a corpus."""
NAMED = 10
"""The most unknown tokens that an error lists."""


def chosen_tokens(options: Vocabulary, tokenizer: TokenizerFile, needed: set[int]) -> list[int]:
    """The old ids to keep, ascending.

    needed: ids that the model itself refers to.

    Raises:
        SpecError: a token that the tokenizer does not have, or a vocabulary that is too small.
        InputError: a file cannot be read.
    """
    if options.tokens is not None:
        return sorted(with_needed(tokenizer, needed | listed(Path(options.tokens), tokenizer)))
    assert options.corpus is not None
    assert options.keep is not None
    least = with_needed(tokenizer, needed)
    for found, expected in (
        (options.keep < len(least), f"at least {len(least):,}: special tokens, bytes and the model's own"),
        (options.keep > len(least | tokenizer.tokens.keys()), f"at most {len(tokenizer.tokens):,}, the tokenizer's tokens"),
    ):
        if found:
            raise SpecError(Problem("vocabulary.keep", f"{options.keep:,}", expected))
    counts = counted(Path(options.corpus), tokenizer)
    # then by id: low ids are early merges, the most frequent ones of the corpus that the tokenizer was trained on
    ranked = [index for index, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    ranked += [index for index in sorted(tokenizer.tokens) if index not in counts]
    for index in ranked:
        wanted = tokenizer.needed(index) | least
        if len(wanted) <= options.keep:
            least = wanted
        if len(least) == options.keep:
            break
    return sorted(least)


def listed(file: Path, tokenizer: TokenizerFile) -> set[int]:
    """The ids of the tokens in a file."""
    try:
        text = read_text(file, LIST_BYTES)
        names = parse_json(text) if file.suffix == ".json" else [line for line in text.split("\n") if line]
    except (OSError, ValueError, RecursionError) as error:
        raise unreadable("vocabulary.tokens", file, error) from None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise SpecError(Problem(f"vocabulary.tokens: {file}", shorten(names), "a list of tokens"))
    if unknown := [name for name in names if name not in tokenizer.ids]:
        found = ", ".join(shorten(name) for name in unknown[:NAMED]) + (", ..." if len(unknown) > NAMED else "")
        expected = f"tokens of {tokenizer.place}"
        remedy = "Write them as the tokenizer does: with \u2581 or \u0120 for a space, say."
        raise SpecError(Problem(f"vocabulary.tokens: {file}", f"{len(unknown):,} others: {found}", expected, remedy))
    return {tokenizer.ids[name] for name in names}


def counted(file: Path, tokenizer: TokenizerFile) -> Counter[int]:
    """How often each token occurs in a corpus."""
    encoder = parsed_tokenizer(tokenizer.content, tokenizer.place)
    counts: Counter[int] = Counter()
    for text in texts(file):
        counts.update(encoder.encode(text, add_special_tokens=False).ids)
    return counts


def texts(file: Path) -> Iterator[str]:
    """The texts of a corpus, one a line."""
    where = "vocabulary.corpus"
    number = 0
    try:
        with open_regular(file) as raw:
            while line := raw.readline(LINE_BYTES + 1):
                number += 1
                if len(line) > LINE_BYTES:
                    raise InputError(
                        Problem(f"{where}: {file}: line {number}", f"more than {LINE_BYTES:,} bytes", "a shorter line")
                    )
                text = line.decode("utf-8").rstrip("\r\n")
                if file.suffix != ".jsonl":
                    yield text
                elif text.strip():
                    row = parse_json(text)
                    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
                        raise InputError(
                            Problem(f"{where}: {file}: line {number}", shorten(row), 'an object with a string "text"')
                        )
                    yield row["text"]
    except (OSError, ValueError, RecursionError) as error:
        raise unreadable(where, file, error, number) from None


def unreadable(where: str, file: Path, error: Exception, line: int = 0) -> InputError:
    found = getattr(error, "strerror", None) or str(error)
    place = f"{where}: {file}" + (f": line {line}" if line else "")
    return InputError(Problem(place, "no such file" if isinstance(error, FileNotFoundError) else found, "a readable text file"))
