"""Text from tokens as they are generated."""

from collections.abc import Callable

INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
"""What tokenizers make of the bytes of a character that is not complete."""


class TextStream:
    """Turns token IDs into the text that each adds. A character of several tokens appears once it is complete.

    decode: from token IDs to text, of which a few at a time are decoded: those whose text is not out, and those before them,
            since the first token of a text may lose its space.
    """

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self.decode = decode
        self.ids: list[int] = []
        self.begin = self.out = 0

    def put(self, token: int) -> str:
        """The text that is complete with `token`, which may be empty."""
        self.ids.append(token)
        before, text = self.decode(self.ids[self.begin : self.out]), self.decode(self.ids[self.begin :])
        if len(text) <= len(before) or not text.startswith(before) or text.endswith(INCOMPLETE):
            return ""
        self.begin, self.out = self.out, len(self.ids)
        return text[len(before) :]

    def end(self) -> str:
        """The text that was not complete."""
        before, text = self.decode(self.ids[self.begin : self.out]), self.decode(self.ids[self.begin :])
        self.begin = self.out = len(self.ids)
        return text[len(before) :]
