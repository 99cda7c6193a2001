"""The command `chat`."""

import contextlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pairform.cli.generation.settings import ANSWER, check_sampling, parsed, with_settings
from pairform.cli.options import Folder, given_path, torch_device, torch_dtype
from pairform.registry.errors import PairformError, printable, shown

if TYPE_CHECKING:
    from pairform.cli.generation.conversation import Answer, Conversation

HELP = """/reset  forget the conversation
/exit   end the chat, as Ctrl-D does
/help   show this list
Ctrl-C stops an answer. To send a line that begins with a slash, put a space before it."""


@with_settings(without=("num_return_sequences",), max_new_tokens=ANSWER)
def chat(
    directory: Folder,
    system: Annotated[str | None, typer.Option(help="Text of the system message, if the template has one.")] = None,
    template: Annotated[
        Path | None,
        typer.Option(metavar="FILE", parser=given_path, help="Chat template in Jinja.  [default: the folder's]"),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="With --do-sample: random seed.")] = None,
    device: Annotated[str, typer.Option(help="Device to run on: cpu, cuda, ...")] = "cpu",
    dtype: Annotated[str | None, typer.Option(help="Dtype to compute in; by default, that of the weights.")] = None,
    quantise: Annotated[
        str | None, typer.Option(help="int8: store linear weights in eight bits; int8_dynamic: also multiply in eight bits.")
    ] = None,
    **settings: Any,
) -> None:
    """Talk with a model, through its chat template. Reads a message a line."""
    from pairform.assemblies.preprocessing.chat_renderer import ChatRenderer
    from pairform.assemblies.preprocessing.chat_template_files import read_model_template
    from pairform.cli.generation.conversation import Conversation
    from pairform.cli.text import TextModel

    chosen = parsed(settings)
    kind = torch_dtype(dtype) if dtype else None
    model = TextModel(directory, device=torch_device(device), dtype=kind, quantise=quantise, remedy="")
    check_sampling(chosen, seed, model.settings(chosen).do_sample)
    with ChatRenderer(*read_model_template(model.folder, model.reads, template)) as renderer:
        conversation = Conversation(model, renderer, system, model.settings(chosen), seed)
        conversation.check()
        talk(conversation)


def talk(conversation: "Conversation") -> None:
    """The loop over turns, until the input ends."""
    terminal = sys.stdin.isatty()
    if terminal:
        note("/help shows the commands, Ctrl-C stops an answer, Ctrl-D ends")
    with Interrupts(terminal) as interrupts:
        while (line := interrupts.read_line()) is not None:
            command = line.rstrip()
            if command == "/exit":
                return
            if command == "/reset":
                conversation.reset()
                note("the conversation is empty")
            elif command == "/help":
                print(HELP, file=sys.stderr)
            elif command.startswith("/"):
                note(f"no command {printable(command.split()[0][:40])}; /help shows the commands")
            elif command:
                turn(conversation, line.strip(), interrupts)


def turn(conversation: "Conversation", text: str, interrupts: "Interrupts") -> None:
    """One message and its answer; an error is shown, and the conversation goes on."""
    try:
        with interrupts.answering():
            answer = conversation.say(text, write, lambda: interrupts.asked)
    except PairformError as error:
        for line in error.lines():
            print(f"error: {line}", file=sys.stderr)
        return
    except KeyboardInterrupt:
        if not interrupts.terminal:
            raise
        print()
        note("stopped; the message was not added")
        return
    print()
    report(answer)


def report(answer: "Answer") -> None:
    if answer.dropped:
        note(f"dropped the {answer.dropped} oldest messages, for which the model has no room")
    if answer.stopped:
        note("stopped; what was said is kept")
    elif answer.cut:
        note(f"cut at {len(answer.ids)} tokens")
    elif not answer.text.strip():
        note("wrote no text, only special tokens")


def write(text: str) -> None:
    print(shown(text), end="", flush=True)


def note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)


class Interrupts:
    """What Ctrl-C does in a terminal: during an answer the first one asks it to stop, and the second one raises
    `KeyboardInterrupt`; at the prompt it discards the line. Without a terminal it ends the program.

    asked: whether there was one since the last prompt. One between the prompt and the answer stops the answer.
    """

    def __init__(self, terminal: bool) -> None:
        self.terminal = terminal
        self.asked = False
        self.state: Literal["reading", "answering"] | None = None
        self.before: Any = None

    def __enter__(self) -> "Interrupts":
        if self.terminal:
            self.before = signal.signal(signal.SIGINT, self.handle)
        return self

    def __exit__(self, *_: object) -> None:
        if self.terminal:
            signal.signal(signal.SIGINT, self.before)

    def handle(self, number: int, frame: FrameType | None) -> None:
        if self.state == "reading" or (self.state == "answering" and self.asked):
            self.state = None
            raise KeyboardInterrupt
        self.asked = True

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        self.state = "answering"
        try:
            yield
        finally:
            self.state = None

    def read_line(self) -> str | None:
        """The next line of the input; None at its end."""
        if not self.terminal:
            return sys.stdin.readline() or None
        import readline  # noqa: F401, which lets `input` edit lines

        while True:
            self.asked = False
            try:
                self.state = "reading"
                line = input("> ")
                self.state = None
                return line
            except EOFError:
                print()
                return None
            except KeyboardInterrupt:
                print()
                note("Ctrl-D or /exit ends the chat")
