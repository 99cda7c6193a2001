"""The sources of Python's standard library as a corpus, and a part of them that no model is trained on, with labelled bytes."""

import hashlib
import io
import json
import keyword
import sysconfig
import tokenize
from pathlib import Path

LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idle_test", "lib2to3"}
CORPUS = {"sources": [{"files": ["library.jsonl"]}], "tokenizer": "bytes", "held_out": 0.1}
LABELS = ("space", "keyword", "definition", "call", "attribute", "name", "number", "string", "comment", "operator")
"""What a byte of a source file belongs to. Whether a name is called shows only after it."""
KINDS = {tokenize.NUMBER: "number", tokenize.STRING: "string", tokenize.COMMENT: "comment", tokenize.OP: "operator"}


def write_texts(out: Path, most: int | None = None) -> None:
    """Write `corpus.json`, `library.jsonl`, and every tenth file, chosen by its name, into `apart.jsonl`.

    most: read only so many files.
    """
    root = Path(sysconfig.get_path("stdlib"))
    (out / "corpus.json").write_text(json.dumps(CORPUS), "utf-8")
    with (
        (out / "library.jsonl").open("w", encoding="utf-8") as library,
        (out / "apart.jsonl").open("w", encoding="utf-8") as apart,
    ):
        for file in sorted(root.rglob("*.py"))[:most]:
            name = file.relative_to(root)
            if LEFT_OUT.isdisjoint(name.parts) and (text := ascii_text(file)):
                tenth = int(hashlib.sha256(name.as_posix().encode()).hexdigest(), 16) % 10 == 0
                print(json.dumps({"text": text}), file=apart if tenth else library)


def ascii_text(file: Path) -> str:
    """The text of a file, or nothing if it has other characters, so that a character is a byte."""
    content = file.read_bytes()
    return content.decode("ascii") if content.isascii() else ""


def labels_of(text: str) -> list[int]:
    """The label of each character of a Python source, as a position in `LABELS`."""
    found = [LABELS.index("space")] * len(text)
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    tokens = [token for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.string.strip()]
    for before, token, after in zip([None, *tokens], tokens, [*tokens[1:], None], strict=False):
        kind = KINDS.get(token.type)
        if token.type == tokenize.NAME:
            if keyword.iskeyword(token.string):
                kind = "keyword"
            elif before is not None and before.string in ("def", "class"):
                kind = "definition"
            elif after is not None and after.string == "(":
                kind = "call"
            else:
                kind = "attribute" if before is not None and before.string == "." else "name"
        if kind is not None:
            begin, end = (starts[row - 1] + column for row, column in (token.start, token.end))
            found[begin:end] = [LABELS.index(kind)] * (end - begin)
    return found
