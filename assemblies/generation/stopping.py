"""When rows end, besides at the largest length."""

import time
from collections.abc import Iterator
from itertools import takewhile
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from pairform.assemblies.generation.options import as_tuple
from pairform.assemblies.generation.processors import functions
from pairform.assemblies.modeling.checks.arguments import described
from pairform.assemblies.modeling.generate_arguments import GenerateArguments, StopFunction
from pairform.assemblies.specs.generation import GenerationSpec
from pairform.registry import InputError, Problem


class Stopping:
    """End tokens, and the functions that are called with the tokens so far."""

    def __init__(self, ends: tuple[int, ...], functions: list[StopFunction], device: torch.device) -> None:
        self.ends, self.functions = torch.tensor(ends, device=device, dtype=torch.long), functions

    @property
    def any(self) -> bool:
        """Whether a row can end before the largest length."""
        return len(self.ends) > 0 or bool(self.functions)

    def __call__(self, tokens: Int[Tensor, "*rows length"], scores: Any = None) -> Bool[Tensor, "*rows"]:
        """Whether each row ends with its last token. scores: those of all steps, if they are returned."""
        ended = torch.isin(tokens[..., -1], self.ends)
        for function in self.functions:
            found = function(tokens.flatten(0, -2), scores)
            if isinstance(found, Tensor) and found.numel() == ended.numel():
                ended = ended | found.to(ended.device).bool().view_as(ended)
            elif isinstance(found, bool):
                ended = ended | found
            else:
                what = f"the shape {list(found.shape)}" if isinstance(found, Tensor) else described(found)
                raise InputError(Problem("stopping_criteria", what, f"a bool, or a tensor of {ended.numel()}"))
        return ended


def stopping(settings: GenerationSpec, ends: tuple[int, ...], arguments: GenerateArguments, device: torch.device) -> Stopping:
    """The conditions of a call.

    Raises:
        InputError: stop strings without a tokenizer, or a condition that is no function.
    """
    return Stopping(ends, [*conditions(settings, arguments)], device)


def conditions(settings: GenerationSpec, arguments: GenerateArguments) -> Iterator[StopFunction]:
    if settings.max_time is not None:
        yield TimeLimit(settings.max_time)
    if settings.stop_strings:
        tokenizer = arguments.get("tokenizer")
        if not callable(getattr(tokenizer, "decode", None)):
            expected = "the tokenizer, whose `decode` gives the text"
            raise InputError(Problem("tokenizer", f"{described(tokenizer)} with stop_strings", expected))
        yield StopStrings(as_tuple(settings.stop_strings), tokenizer)
    yield from functions("stopping_criteria", arguments.get("stopping_criteria"))


class TimeLimit:
    """Ends all rows at the first step that ends more than this many seconds after the first began."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds

    def __call__(self, tokens: Tensor, scores: Any) -> bool:
        return time.monotonic() > self.end


class StopStrings:
    """Ends a row whose last token completes one of the strings."""

    def __init__(self, strings: tuple[str, ...], tokenizer: Any) -> None:
        self.strings, self.tokenizer = strings, tokenizer
        # a token has at least one byte of text, or none as a special token
        self.longest = max(len(string.encode()) for string in strings) + 1

    def __call__(self, tokens: Int[Tensor, "rows length"], scores: Any) -> Bool[Tensor, " rows"]:
        ended = []
        for row in tokens[:, -self.longest - 1 :].tolist():
            before, text = self.text(row[:-1]), self.text(row)
            # a last token may complete a character of several bytes, so that the texts differ before it
            begin = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, text, strict=False)))
            ended.append(any(string in text[max(0, begin - len(string) + 1) :] for string in self.strings))
        return torch.tensor(ended, device=tokens.device)

    def text(self, tokens: list[int]) -> str:
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=False)
        return text
