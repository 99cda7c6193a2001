"""Special tokens in specs."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field, Strict

from pairform.registry import Spec

TokenId = Annotated[int, Field(ge=0)]
MOST_ENDS = 1000
"""The most end tokens of a model; real ones have a few. Each is compared with every generated token."""


class TokenSpec(Spec):
    """Ids of special tokens."""

    pad: TokenId | None = Field(
        default=None,
        description="Padding token. Calls without a mask hide it, unless it is also an end token, which may occur inside a "
        "text.",
    )
    bos: TokenId | None = Field(default=None, description="Token that begins a text.")
    eos: TokenId | Annotated[tuple[TokenId, ...], Strict(False), Field(max_length=MOST_ENDS)] | None = Field(
        default=None, description="Token, or list of tokens, that ends a text."
    )
    start: TokenId | None = Field(default=None, description="First token of the decoder's input. Default: `bos`.")
    wrap: bool = Field(
        default=False,
        description="When labels are shifted right, begin with the last label of the row that is not padding, in mBART (arXiv "
        "2001.08210, section 2.2) the language, instead of the start token.",
    )
    forced_bos: TokenId | None = Field(
        default=None,
        description="First token to generate after a start token alone, such as the target language. Default: none is forced.",
    )
    forced_eos: TokenId | Annotated[tuple[TokenId, ...], Strict(False), Field(max_length=MOST_ENDS)] | None = Field(
        default=None,
        description="Token, or list of tokens to choose from, that a row ends with if it reaches the largest number of new "
        "tokens. Default: none is forced.",
    )

    @property
    def first(self) -> int | None:
        """The token that a decoder starts from: `start`, or else `bos`."""
        return self.bos if self.start is None else self.start

    @property
    def ends(self) -> tuple[int, ...]:
        """Every end token."""
        if self.eos is None:
            return ()
        return self.eos if isinstance(self.eos, tuple) else (self.eos,)

    @property
    def forced_ends(self) -> tuple[int, ...]:
        """Every token of `forced_eos`."""
        if self.forced_eos is None:
            return ()
        return self.forced_eos if isinstance(self.forced_eos, tuple) else (self.forced_eos,)

    @property
    def padding(self) -> int | None:
        """The token that is padding wherever it occurs; None if there is no such token."""
        return None if self.pad in self.ends else self.pad

    def named(self) -> Iterator[tuple[str, int]]:
        """Each id with its path."""
        for name, token in (("pad", self.pad), ("bos", self.bos), ("start", self.start), ("forced_bos", self.forced_bos)):
            if token is not None:
                yield name, token
        for name, ends in (("eos", self.ends), ("forced_eos", self.forced_ends)):
            for index, end in enumerate(ends):
                yield f"{name}[{index}]" if len(ends) > 1 else name, end
