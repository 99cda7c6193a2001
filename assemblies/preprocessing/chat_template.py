"""Conversations as text, by a tokenizer's chat template.

A template is a program in Jinja that may come from a stranger. It runs in Jinja's sandbox with limits on time and output;
`processes` adds a limit on memory.
"""

import contextlib
import json
import signal
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import Any, NoReturn

from pairform.registry import Problem, SpecError, not_installed, shorten

SECONDS = 10.0
"""Longest time that a template may take for one conversation; a long one takes milliseconds."""
RENDERED = 16 << 20
"""Largest number of characters that a template may make of one conversation."""
NUMBER_BITS = 128
"""Limit of whole numbers in a template: a larger power could take hours that no signal interrupts."""


class SlowTemplateError(Exception):
    """A template took too long."""


class ChatTemplate:
    """Renders conversations as transformers does, except that there is no clock: the same conversation gives the same text.

    special: special tokens by name, as in `{"bos_token": "<bos>"}`.

    Raises:
        SpecError: Jinja is not installed, or the template is not one.
    """

    def __init__(self, text: str, special: Mapping[str, str]) -> None:
        try:
            from jinja2 import TemplateError
        except ModuleNotFoundError:
            raise SpecError(not_installed("chat_template", "jinja2", "adapt")) from None
        self.special = special
        try:
            with time_limit():
                self.template = environment().from_string(text)
        except (TemplateError, SlowTemplateError, MemoryError, RecursionError, OverflowError, ValueError) as error:
            raise SpecError(Problem("chat_template", explained(error), "a chat template")) from None

    def render(self, messages: Sequence[dict[str, Any]], where: str, *, begin_answer: bool) -> str:
        """The text of a conversation.

        begin_answer: end with the text that an answer follows.

        Raises:
            SpecError: the template refuses the conversation or exceeds a limit.
        """
        values = {"messages": list(messages), "add_generation_prompt": begin_answer, "tools": None, "documents": None}
        text: list[str] = []
        size = 0
        try:
            with time_limit():
                for part in self.template.generate(**self.special, **values):
                    text.append(part)
                    size += len(part)
                    if size > RENDERED:
                        raise MemoryError
            whole = "".join(text)
            whole.encode()
        except Exception as error:  # a template is a program, and may fail in any way
            raise SpecError(Problem(where, explained(error), "a conversation that the chat template accepts")) from None
        return whole


def environment() -> Any:
    """Jinja's sandbox with what transformers gives to templates, without a clock."""
    from jinja2 import TemplateError, nodes
    from jinja2.exceptions import SecurityError
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.utils import Namespace

    class Generation(Extension):
        """`{% generation %}` marks answers for other programs; its content is rendered."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Any) -> nodes.Node:
            line = next(parser.stream).lineno
            return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True)).set_lineno(line)

    def check_public(name: object) -> None:
        if not isinstance(name, str) or name.startswith("_"):
            raise SecurityError(f"a private attribute, {shorten(name)}, of a namespace")

    class PublicNamespace(Namespace):
        """A namespace without private attributes, through which a template could leave the sandbox."""

        def __init__(self, *values: Any, **more: Any) -> None:
            attributes = dict(*values, **more)
            for name in attributes:
                check_public(name)
            super().__init__(attributes)

        def __setitem__(self, name: str, value: Any) -> None:
            check_public(name)
            super().__setitem__(name, value)

    class Sandbox(ImmutableSandboxedEnvironment):
        """The sandbox with bounded products and powers, which no signal would interrupt."""

        intercepted_binops = frozenset(["*", "**"])

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            if all(isinstance(value, int) for value in (left, right)):
                small = max(abs(left).bit_length(), 1)
                bits = small * min(abs(right), 2 * NUMBER_BITS) if operator == "**" else small + abs(right).bit_length()
                if bits > NUMBER_BITS:
                    raise SecurityError(f"a number of more than {NUMBER_BITS} bits")
            elif operator == "*":
                for value, times in ((left, right), (right, left)):
                    if isinstance(times, int) and hasattr(value, "__len__") and len(value) * times > RENDERED:
                        raise SecurityError("a value that is repeated too often")
            return super().call_binop(context, operator, left, right)

    def raise_exception(message: str) -> NoReturn:
        raise TemplateError(message)

    def tojson(
        value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
    ) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    made = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"])
    made.filters["tojson"] = tojson
    made.globals.update(raise_exception=raise_exception, namespace=PublicNamespace, dict=lambda **values: dict(values))
    return made


@contextlib.contextmanager
def time_limit() -> Iterator[None]:
    """Raise `SlowTemplateError` in a block that takes longer than `SECONDS`. The process's main thread must run it."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise SlowTemplateError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def explained(error: Exception) -> str:
    if isinstance(error, SlowTemplateError):
        return f"a chat template that takes more than {SECONDS:g} seconds"
    if isinstance(error, MemoryError):
        return "a chat template that takes too much memory"
    return f"an error of the chat template: {str(error) or type(error).__name__}"
