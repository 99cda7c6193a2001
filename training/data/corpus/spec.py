"""Corpora as JSON: `corpus.json`."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, Strict

from pairform.registry import PositiveFloat, Probability, Problem, Spec, SpecError, in_file, read_json
from pairform.training.data.corpus.manifest import BYTES, Name
from pairform.training.data.globs import Globs

MOST_SOURCES = 1000


class SourceSpec(Spec):
    """Files of one kind: running text (`field`), sequence pairs (`source` and `target`), or conversations (`messages`).

    `.jsonl` and `.parquet` files have a document in each line or row, any other file is one text. Names may end in `.gz` or
    `.zst`.
    """

    files: Globs = Field(description="Patterns such as `books/*.jsonl.gz`, relative to the corpus file's folder.")
    name: Name | None = Field(default=None, description="Name of the source in reports. Default: its first pattern.")
    weight: PositiveFloat = Field(default=1.0, description="Share of the training examples, relative to the other sources'.")
    field: str | None = Field(default=None, description="Field or column with a text. Default: `text`.")
    source: str | None = Field(default=None, description="Field or column with the source of a pair.")
    target: str | None = Field(default=None, description="Field or column with the target of a pair.")
    messages: str | None = Field(
        default=None, description="Field or column with a conversation: a list of objects with `role` and `content`."
    )
    answers: Literal["last", "all"] | None = Field(
        default=None, description="Which of a conversation's answers become targets, each with what precedes it as source."
    )
    special_tokens: bool = Field(
        default=False, description="Whether special tokens that are spelt out in a text become their ids."
    )

    @property
    def kind(self) -> Literal["text", "pairs", "chat"]:
        if self.messages is not None:
            return "chat"
        return "text" if self.source is None and self.target is None else "pairs"

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that are read of each line."""
        if self.kind == "text":
            return (self.field or "text",)
        return tuple(name for name in (self.source, self.target, self.messages) if name is not None)

    @property
    def title(self) -> str:
        return self.name or self.files[0][:200]

    def check(self) -> Iterator[Problem]:
        given = {name for name in ("field", "source", "target", "messages", "answers") if getattr(self, name) is not None}
        whole: tuple[set[str], ...] = ({"source", "target"}, {"messages"}, {"messages", "answers"}, {"field"}, set())
        if given not in whole:
            expected = "`field` for text, `source` and `target` for pairs, or `messages` (and `answers`) for conversations"
            yield Problem("", " and ".join(f"`{name}`" for name in sorted(given)), expected)


class CorpusSpec(Spec):
    """Documents to tokenise once, for `pairform data prepare`."""

    sources: Annotated[tuple[SourceSpec, ...], Strict(False), Field(min_length=1, max_length=MOST_SOURCES)] = Field(
        description="Where the documents are."
    )
    tokenizer: Annotated[str, Field(min_length=1)] = Field(
        default=BYTES,
        description="`bytes`, or a `tokenizer.json` or the folder that holds one, relative to this file's folder.",
    )
    chat_template: str | None = Field(
        default=None, description="A file with the chat template. Default: the one that came with the tokenizer."
    )
    held_out: Probability = Field(default=0.0, description="Share of each source's documents that is kept for evaluation.")
    shard_tokens: Annotated[int, Field(gt=0, le=2**40)] = Field(
        default=2**27, description="A shard ends with the document that brings it to this many tokens."
    )

    def check(self) -> Iterator[Problem]:
        """What is wrong between the sources."""
        for index, source in enumerate(self.sources):
            yield from (problem.inside(f"sources[{index}]") for problem in source.check())
        title, count = Counter(source.title for source in self.sources).most_common(1)[0]
        if count > 1:
            yield Problem("sources", f"{count} sources named {title!r}", "unequal names", 'Give each a "name".')
        if self.chat_template is not None and all(source.kind != "chat" for source in self.sources):
            yield Problem("chat_template", "a template without a source of conversations", "a source with `messages`")

    @classmethod
    def read_file(cls, file: Path) -> "CorpusSpec":
        """The corpus in a file; `SpecError` with everything that is wrong."""
        try:
            corpus = cls.read(read_json(file))
            if problems := list(corpus.check()):
                raise SpecError(problems)
        except SpecError as error:
            raise SpecError(in_file(str(file), error)) from None
        return corpus
