"""Which vocabulary a new model gets."""

from typing import Self

from pydantic import Field, model_validator

from pairform.registry import PositiveInt, Problem, Spec, nested


class Vocabulary(Spec):
    """Another vocabulary than the sources'. Exactly one of tokens, corpus and tokenizer is given."""

    tokens: str | None = Field(
        default=None, description="File with the tokens to keep, as the tokenizer spells them: one a line, or a JSON list."
    )
    corpus: str | None = Field(
        default=None,
        description="File with texts, one a line, or in the field `text` of each line's JSON object (.jsonl). The `keep` "
        "tokens that are most frequent in it are kept.",
    )
    keep: PositiveInt | None = Field(default=None, description="Size of the vocabulary, with `corpus`.")
    tokenizer: str | None = Field(
        default=None,
        description="Folder of another tokenizer. Tokens that the old one has keep their embedding; others start as the mean "
        "of the embeddings of the old tokens that spell them.",
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        given = [name for name in ("tokens", "corpus", "tokenizer") if getattr(self, name) is not None]
        if len(given) != 1:
            raise nested([Problem("", " and ".join(given) or "nothing", "one of tokens, corpus and tokenizer")])
        if (self.keep is None) != (self.corpus is None):
            found = "no size" if self.keep is None else f"keep = {self.keep} without a corpus"
            raise nested([Problem("keep", found, "the size of the vocabulary to keep, together with corpus")])
        return self
