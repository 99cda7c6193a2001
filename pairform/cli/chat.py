"""The command `chat`."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pairform.cli.generation.settings import check_sampling, parsed, with_settings
from pairform.cli.options import Folder, given_path, torch_device, torch_dtype
from pairform.registry.errors import PairformError, printable, shown

if TYPE_CHECKING:
    from pairform.cli.generation.conversation import Answer, Conversation

HELP = """/reset  forget the conversation
/exit   end the chat, as Ctrl-D does
/help   show this list
Ctrl-C stops an answer. To send a line that begins with a slash, put a space before it."""


@with_settings(without=("num_return_sequences",))
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
    quantise: Annotated[str | None, typer.Option(help="int8: store linear weights in eight bits.")] = None,
    **settings: Any,
) -> None:
    """Talk with a model, through its chat template. Reads a message a line."""
    from pairform.assemblies.preprocessing.chat_renderer import ChatRenderer
    from pairform.assemblies.preprocessing.chat_template_files import read_model_template
    from pairform.cli.generation.conversation import Conversation
    from pairform.cli.text import TextModel

    chosen = parsed(settings)
    kind = torch_dtype(dtype) if dtype else None
    model = TextModel(directory, device=torch_device(device), dtype=kind, quantise=quantise)
    check_sampling(chosen, seed, model.settings(chosen).do_sample)
    with ChatRenderer(*read_model_template(model.folder, model.reads, template)) as renderer:
        conversation = Conversation(model, renderer, system, model.settings(chosen), seed)
        renderer.render([*conversation.messages, {"role": "user", "content": "?"}])  # a broken template fails before a message
        talk(conversation)


def talk(conversation: "Conversation") -> None:
    """The loop over turns, until the input ends."""
    terminal = sys.stdin.isatty()
    if terminal:
        note("/help shows the commands, Ctrl-C stops an answer, Ctrl-D ends")
    while (line := read_line(terminal)) is not None:
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
            turn(conversation, line.strip(), terminal)


def turn(conversation: "Conversation", text: str, terminal: bool) -> None:
    """One message and its answer; an error is shown, and the conversation goes on."""
    try:
        with stoppable(terminal) as stopped:
            answer = conversation.say(text, write, stopped.is_set)
    except PairformError as error:
        for line in error.lines():
            print(f"error: {line}", file=sys.stderr)
        return
    except KeyboardInterrupt:
        if not terminal:
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


def read_line(terminal: bool) -> str | None:
    """The next line of the input; None at its end."""
    if not terminal:
        return sys.stdin.readline() or None
    import readline  # noqa: F401, which lets `input` edit lines

    while True:
        try:
            return input("> ")
        except EOFError:
            print()
            return None
        except KeyboardInterrupt:
            print()
            note("Ctrl-D or /exit ends the chat")


@contextlib.contextmanager
def stoppable(terminal: bool) -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets; the second one raises `KeyboardInterrupt`. Without a terminal, or outside the main
    thread, nothing changes."""
    asked = threading.Event()
    if not terminal or threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def stop(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)
