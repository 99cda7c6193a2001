"""A chat template in a process of its own, with limits on time, memory and output."""

from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

from pairform.assemblies.preprocessing.chat_template import ChatTemplate
from pairform.assemblies.preprocessing.worker_process import WorkerProcess, limit_memory
from pairform.registry import PairformError, SpecError


class ChatRenderer:
    """Renders conversations by a template.

    text:    the template.
    special: special tokens by name, as in `{"bos_token": "<bos>"}`.
    """

    def __init__(self, text: str, special: Mapping[str, str]) -> None:
        self.template = text, dict(special)
        self.start()

    def start(self) -> None:
        self.process = WorkerProcess(serve, "chat_template", "one that renders conversations")
        self.process.send(self.template)

    def __enter__(self) -> "ChatRenderer":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stop()

    def render(self, messages: Sequence[Mapping[str, str]], *, begin_answer: bool = True) -> str:
        """The text of a conversation. begin_answer: end with the text that an answer follows.

        Raises:
            SpecError: the template is none, refuses the conversation or exceeds a limit.
            InputError: the process ended.
        """
        try:
            self.process.send((list(messages), begin_answer))
            found: Any = self.process.receive()
        except KeyboardInterrupt:  # the answer would be taken for that of the next conversation
            self.process.stop()
            self.start()
            raise
        if isinstance(found, str):
            return found
        raise SpecError(found)


def serve(requests: Connection, answers: Connection) -> None:
    """The process: it receives a template and then conversations, and answers each with its text, or with problems."""
    text, special = requests.recv()
    limit_memory()
    template: ChatTemplate | None = None
    while True:
        messages, begin_answer = requests.recv()
        try:
            template = template or ChatTemplate(text, special)
            answers.send(template.render(messages, "messages", begin_answer=begin_answer))
        except PairformError as error:
            answers.send(list(error.problems))
