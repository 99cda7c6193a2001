"""A conversation with a model: its messages, what of them fits, and the model's answers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pairform.assemblies.specs.generation import GenerationSpec
from pairform.cli.generation.settings import ANSWER
from pairform.cli.generation.text_stream import TextStream
from pairform.registry import InputError, Problem

if TYPE_CHECKING:
    from pairform.assemblies.preprocessing.chat_renderer import ChatRenderer
    from pairform.blocks.cache import Cache
    from pairform.cli.text import TextModel

SHARE = 4
"""At least this part of the model's `max_length` is left for an answer."""


class StoppedTurnError(Exception):
    """The user stopped an answer."""


@dataclass(frozen=True)
class Answer:
    """What the model said.

    ids:     its tokens.
    text:    without the token that ended it.
    stopped: by the user.
    cut:     at the largest number of new tokens.
    dropped: the number of messages that were dropped before.
    """

    ids: list[int]
    text: str
    stopped: bool
    cut: bool
    dropped: int


class Conversation:
    """The messages so far and the model that answers them.

    A decoder-only model keeps the keys and values of the conversation, as long as the next prompt begins with the same tokens;
    the encoder of others reads the whole conversation at each turn.

    system:  the text of a system message.
    """

    def __init__(
        self, model: "TextModel", renderer: "ChatRenderer", system: str | None, settings: "GenerationSpec", seed: int | None
    ) -> None:
        self.model, self.renderer = model, renderer
        self.first = [] if system is None else [message("system", system)]
        self.settings, self.seed = settings, seed
        self.max_new_tokens = settings.max_new_tokens or ANSWER
        self.ends = model.ends(settings)
        self.reset()

    def check(self) -> None:
        """Raise `PairformError` for what would fail at every message: the template, the tokenizers, a model that generates
        nothing."""
        spec = self.model.model.spec
        if spec.decoder is None or spec.head.name != "lm":
            found = f"a {spec.assembly} model with the head {spec.head.name!r}"
            raise InputError(Problem(str(self.model.folder), found, "a decoder with an LM head"))
        self.model.encode(self.renderer.render([*self.messages, message("user", "?")]), special=False)
        self.model.decode([])

    def reset(self) -> None:
        """Forget all messages but the system's."""
        self.messages = list(self.first)
        self.cache: Cache | None = None

    def say(self, text: str, write: Callable[[str], object], stopping: Callable[[], bool]) -> Answer:
        """Add a message of the user and the model's answer.

        write:    is called with each piece of the answer's text.
        stopping: whether the user has stopped the answer. What was said before is kept.

        Raises:
            PairformError: the template refuses the messages, or the last one is too long. It is not added.
        """
        before = list(self.messages)
        self.messages.append(message("user", text))
        try:
            ids, dropped = self.fitting()
            answer = self.answer(ids, dropped, write, stopping)
        except BaseException:
            self.messages, self.cache = before, None
            raise
        self.messages.append(message("assistant", answer.text))
        return answer

    def fitting(self) -> tuple[list[int], int]:
        """The prompt's tokens, after the oldest turns were dropped for which there is no room, and the number of messages
        dropped.

        Raises:
            InputError: there is no room for the last message.
        """
        dropped = 0
        while True:
            ids = self.model.encode(self.renderer.render(self.messages), special=False)
            if not ids:
                raise InputError(Problem("chat_template", "a conversation without tokens", "a template that renders messages"))
            limit = self.limit
            if limit is None or len(ids) + self.reserved(limit) <= limit:
                return ids, dropped
            oldest = len(self.first)
            if len(self.messages) == oldest + 1:
                break
            del self.messages[oldest : oldest + 2]  # a question and its answer
            dropped += 2
        if len(ids) + int(self.own_prompt) > limit:
            found = f"{len(ids):,} tokens"
            raise InputError(Problem("message", found, f"fewer than the model's max_length of {limit:,}", "Shorten it."))
        return ids, dropped

    @property
    def own_prompt(self) -> bool:
        """Whether answers follow the conversation in one sequence, as in a decoder-only model."""
        return self.model.model.encoder is None

    @property
    def limit(self) -> int | None:
        """The largest number of tokens of the stack that reads the conversation, or by the settings."""
        largest = [self.model.model.spec.stacks[self.model.reads].max_length]
        if self.own_prompt:
            largest.append(self.settings.max_length)
        return min((length for length in largest if length is not None), default=None)

    def reserved(self, limit: int) -> int:
        """Tokens to leave for the answer."""
        return min(self.max_new_tokens, max(1, limit // SHARE)) if self.own_prompt else 0

    def answer(self, ids: list[int], dropped: int, write: Callable[[str], object], stopping: Callable[[], bool]) -> Answer:
        longest = self.limit if self.own_prompt else self.model.model.spec.stacks["decoder"].max_length
        room = self.max_new_tokens if longest is None else longest - (len(ids) if self.own_prompt else 1)
        most = max(1, min(self.max_new_tokens, room))
        stream = TextStream(self.model.decode)
        new: list[int] = []

        def put(token: int) -> None:
            new.append(token)
            if token not in self.ends:
                write(stream.put(token))
            if stopping():
                raise StoppedTurnError

        settings = self.settings.updated(GenerationSpec(max_new_tokens=most, num_return_sequences=1))
        streamer = put if settings.num_beams == 1 else None
        stopped = False
        try:
            (generated,) = self.model.generate([ids], settings, seed=self.seed, cache=self.kept(ids), streamer=streamer)
        except StoppedTurnError:
            generated, stopped = new, True
            self.record([*ids, *new])
        ended = bool(generated) and generated[-1] in self.ends
        said = generated[:-1] if ended else generated
        text = self.model.decode(said)
        write(stream.end() if streamer else text)
        return Answer(generated, text, stopped, not ended and not stopped and len(generated) >= most, dropped)

    def kept(self, ids: list[int]) -> "Cache | None":
        """The cache of earlier turns if the prompt begins with its tokens, else an empty one; None if none can be kept."""
        from pairform.assemblies.generation.decoding import cacheable, divisible
        from pairform.blocks.cache import Cache

        if not (self.own_prompt and cacheable(self.model.model) and divisible(self.model.model)):
            return None
        known = None if self.cache is None or self.cache.tokens is None else self.cache.tokens[0].tolist()
        if known is None or len(known) >= len(ids) or ids[: len(known)] != known:
            self.cache = Cache()
        return self.cache

    def record(self, ids: list[int]) -> None:
        """Note the tokens in the cache of a generation that was stopped between two steps."""
        import torch

        if self.cache is not None:
            device = self.cache.device
            self.cache.tokens = torch.tensor([ids], device=device)[:, : self.cache.length]


def message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
