"""Conversations as sequence pairs, by a tokenizer's chat template."""

from collections.abc import Sequence
from typing import Any

from pairform.assemblies.preprocessing.chat_template import ChatTemplate
from pairform.registry import Problem, SpecError, shorten
from pairform.training.data.files import text_at

ASSISTANT = "assistant"


def pairs(template: ChatTemplate, messages: object, where: str, *, every: bool) -> list[tuple[str, str]]:
    """The conversation up to the last answer and that answer; with `every`, such a pair for each answer.

    Raises:
        SpecError: `messages` is no conversation, or the template refuses it or exceeds a limit.
    """
    conversation = checked(messages, where)
    answers = [number for number, message in enumerate(conversation) if message["role"] == ASSISTANT and number]
    return [pair(template, conversation[: number + 1], where) for number in (answers if every else answers[-1:])]


def pair(template: ChatTemplate, messages: Sequence[dict[str, Any]], where: str) -> tuple[str, str]:
    prompt = template.render(messages[:-1], where, begin_answer=True)
    whole = template.render(messages, where, begin_answer=False)
    if not whole.startswith(prompt):
        found = "a template that changes what precedes an answer once it has the answer"
        raise SpecError(Problem(where, found, "a conversation that begins with its prompt"))
    return prompt, whole[len(prompt) :]


def checked(messages: object, where: str) -> list[dict[str, Any]]:
    """`messages`, if they are a conversation."""
    if not isinstance(messages, list) or not messages:
        raise SpecError(Problem(where, shorten(messages), 'a list of objects with "role" and "content"'))
    for number, message in enumerate(messages):
        place = f"{where}[{number}]"
        if not isinstance(message, dict):
            raise SpecError(Problem(place, shorten(message), 'an object with "role" and "content"'))
        for name in ("role", "content"):
            text_at(place, message, name)
    return messages
