"""A conversation with a model, a line a message."""

import io
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

import pairform
from pairform.assemblies.preprocessing import worker_process
from pairform.assemblies.preprocessing.chat_renderer import ChatRenderer
from pairform.assemblies.specs.generation import GenerationSpec
from pairform.cli.chat import Interrupts
from pairform.cli.generation.conversation import Conversation
from pairform.cli.text import TextModel
from tests.broken.damage import edit_json
from tests.command_line.runner import CommandLine, Result, refused
from tests.corpus.test_chat import GEMMA
from tests.reader import ROOT

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m.role }} {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant {% endif %}"
)
SETTINGS = ("--max-new-tokens", 6, "--repetition-penalty", 5.0)
"""Answers of different words: wide random weights alone repeat one."""
Chat = Callable[..., Result]


@pytest.fixture
def chat(run: CommandLine, monkeypatch: pytest.MonkeyPatch) -> Chat:
    """`pairform chat` with these words, and lines in its input."""

    def talk(*words: object, lines: tuple[str, ...]) -> Result:
        monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines)))
        return run("chat", *words)

    return talk


@pytest.fixture(params=["a decoder alone", "a pair"])
def folder(request: pytest.FixtureRequest, sources: tuple[Path, Path], pair: Path, tmp_path: Path) -> Path:
    return with_template(sources[1] if request.param == "a decoder alone" else pair, tmp_path / "model")


@pytest.fixture
def alone(sources: tuple[Path, Path], tmp_path: Path) -> Path:
    return with_template(sources[1], tmp_path / "model")


def with_template(model: Path, folder: Path) -> Path:
    shutil.copytree(model, folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


def answers(
    folder: Path, *messages: str, system: str | None = None, past: tuple[str, ...] = (), **settings: object
) -> list[str]:
    """What the model answers, each time from the whole conversation as transformers renders it. past: what was said before."""
    model, tokenizer = pairform.load(folder), AutoTokenizer.from_pretrained(folder)
    talk = [] if system is None else [{"role": "system", "content": system}]
    talk += [{"role": ("user", "assistant")[turn % 2], "content": text} for turn, text in enumerate(past)]
    chosen = {"max_new_tokens": 6, "repetition_penalty": 5.0} | settings
    found = []
    for message in messages:
        talk.append({"role": "user", "content": message})
        ids = tokenizer.apply_chat_template(talk, add_generation_prompt=True, return_tensors="pt")["input_ids"]
        output = model.generate(ids, generation_config=chosen, use_cache=False)[
            0, ids.shape[1] if model.encoder is None else 1 :
        ]
        found.append(tokenizer.decode(output, skip_special_tokens=True))
        talk.append({"role": "assistant", "content": found[-1]})
    return found


def test_each_answer_follows_the_whole_conversation(chat: Chat, folder: Path) -> None:
    """The keys and values that a decoder-only model keeps from turn to turn change no token."""
    messages = ("the quick fox", "a lazy dog", "jumps over the dog")
    result = chat(folder, *SETTINGS, lines=messages)
    expected = answers(folder, *messages)
    assert (result.code, result.out.splitlines()) == (0, expected)
    assert len(set(expected)) == 3
    assert result.err == "note: cut at 6 tokens\n" * 3
    assert chat(folder, *SETTINGS, "--system", "brown", lines=messages).out.splitlines() == answers(
        folder, *messages, system="brown"
    )
    assert chat(folder, *SETTINGS, "--num-beams", 2, lines=messages).out.splitlines() == answers(folder, *messages, num_beams=2)


def test_a_decoder_alone_processes_new_tokens_only(chat: Chat, alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []
    forward = pairform.Model.generate

    def generate(model: pairform.Model, *inputs: Any, **options: Any) -> Any:
        assert model.decoder is not None
        hook = model.decoder.embedding.register_forward_hook(lambda _, given, __: lengths.append(given[0].shape[1]))
        try:
            return forward(model, *inputs, **options)
        finally:
            hook.remove()

    monkeypatch.setattr(pairform.Model, "generate", generate)
    chat(alone, *SETTINGS, lines=("the quick fox", "a lazy dog"))
    # <bos> user the quick fox assistant; then the last token of the answer, user a lazy dog assistant
    assert lengths == [6, 1, 1, 1, 1, 1, 6, 1, 1, 1, 1, 1]


def test_commands(chat: Chat, alone: Path) -> None:
    result = chat(alone, *SETTINGS, lines=("the fox", "/reset", "", "/help", "/rest now", " /dog", "/exit", "not said"))
    first, again = answers(alone, "the fox") + answers(alone, "/dog")
    assert result.out.splitlines() == [first, again]
    for words in ("the conversation is empty", "/reset  forget", "no command /rest"):
        assert words in result.err
    assert "\x1b" not in chat(alone, *SETTINGS, lines=("/\x1b[2J",)).err


def test_an_answer_ends_at_an_end_token_of_the_folder(chat: Chat, alone: Path) -> None:
    """Which may be an ordinary word to the tokenizer, and is not said."""
    words = answers(alone, "the fox")[0].split()
    end = AutoTokenizer.from_pretrained(alone).convert_tokens_to_ids(words[3])
    edit_json(alone / "generation_config.json", lambda found: found.update(eos_token_id=[1, end]))
    result = chat(alone, *SETTINGS, lines=("the fox",))
    assert (result.out, result.err) == (" ".join(words[:3]) + "\n", "")


@pytest.mark.parametrize("place", ["tokenizer_config.json", "--template"])
def test_where_a_template_is(place: str, chat: Chat, alone: Path, tmp_path: Path) -> None:
    (alone / "chat_template.jinja").rename(tmp_path / "other.jinja")
    refused(chat(alone, lines=("the",)), 1, str(alone), "no chat template", "--template FILE")
    options: tuple[object, ...] = ()
    if place == "--template":
        options = ("--template", tmp_path / "other.jinja")
    else:
        edit_json(alone / place, lambda found: found.update(chat_template=TEMPLATE))
    assert (
        chat(alone, *SETTINGS, *options, lines=("the",)).out.split()
        == answers(with_template(alone, tmp_path / "copy"), "the")[0].split()
    )


def test_a_folder_without_a_tokenizer(chat: Chat, alone: Path) -> None:
    (alone / "tokenizer.json").unlink()
    result = chat(alone, lines=("the",))
    refused(result, 1, "tokenizer.json", "no such file")
    assert "--ids" not in result.err


def test_a_model_that_generates_nothing(chat: Chat, alone: Path, tmp_path: Path) -> None:
    pairform.save(pairform.load(alone, patch={"head": {"name": "none"}}), tmp_path / "none")
    refused(chat(tmp_path / "none", "--template", alone / "chat_template.jinja", lines=("the",)), 1, "'none'", "LM head")


def test_a_template_that_refuses(chat: Chat, alone: Path) -> None:
    (alone / "chat_template.jinja").write_text(GEMMA)
    refused(chat(alone, "--system", "x", lines=("the",)), 1, "System role not supported")
    (alone / "chat_template.jinja").write_text(
        TEMPLATE + "{% if messages[-1].content == 'fox' %}{{ raise_exception('no fox') }}{% endif %}"
    )
    result = chat(alone, *SETTINGS, lines=("the", "fox", "dog"))
    assert (result.code, result.out.splitlines()) == (0, answers(with_template(alone, alone / "copy"), "the", "dog"))
    assert "no fox" in result.err


def test_a_template_is_a_strangers_program(chat: Chat, alone: Path, tmp_path: Path) -> None:
    template = alone / "chat_template.jinja"
    template.write_text(f"{{{{ 'a'|center({worker_process.MEMORY}) }}}}")
    refused(chat(alone, lines=("the",)), 1, "too much memory")
    template.write_text("{{ ''.__class__.__mro__ }}")
    refused(chat(alone, lines=("the",)), 1, "unsafe")
    (tmp_path / "outside").write_text(TEMPLATE)
    template.unlink()
    template.symlink_to(tmp_path / "outside")
    refused(chat(alone, lines=("the",)), 1, "chat_template.jinja", "a link to")


def test_the_oldest_turns_make_room(chat: Chat, alone: Path) -> None:
    """A system message stays. A message that does not fit alone is refused, and the conversation goes on."""
    edit_json(alone / "config.json", lambda found: found.update(max_position_embeddings=24))  # 6 of them for an answer
    long = " ".join(["dog"] * 30)
    result = chat(alone, *SETTINGS, "--system", "brown", lines=("the fox", "a dog", long, "the lazy"))
    first, second = answers(alone, "the fox", "a dog", system="brown")
    third = answers(alone, "the lazy", system="brown", past=("a dog", second))
    assert (result.code, result.out.splitlines()) == (0, [first, second, *third])
    assert "message: found 35 tokens" in result.err
    assert "max_length of 24" in result.err
    assert "note: dropped the 2 oldest messages" in result.err


def test_what_was_said_before_a_stop_is_kept(folder: Path) -> None:
    """The next answer follows it, with the keys and values of the tokens so far."""
    settings = GenerationSpec(max_new_tokens=6, repetition_penalty=5.0)
    said: list[str] = []
    with ChatRenderer(TEMPLATE, {"bos_token": "<bos>"}) as renderer:
        conversation = Conversation(TextModel(str(folder)), renderer, None, settings, None)
        first = conversation.say("the fox", said.append, lambda: len(said) == 3)
        cache = conversation.cache
        second = conversation.say("a dog", said.append, lambda: False)
        assert conversation.cache is cache
    whole = answers(folder, "the fox")[0]
    assert (first.stopped, first.text) == (True, "".join(said[:3]))
    assert first.text == " ".join(whole.split()[:3])
    assert second.text == answers(folder, "a dog", past=("the fox", first.text))[0]
    assert not second.stopped


def test_a_second_ctrl_c_interrupts_an_answer_and_nothing_else() -> None:
    with Interrupts(terminal=True) as interrupts:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.asked
        with pytest.raises(KeyboardInterrupt), interrupts.answering():
            os.kill(os.getpid(), signal.SIGINT)
        interrupts.asked = False
        with interrupts.answering():
            os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


class Terminal:
    """`pairform chat` in a terminal of its own."""

    def __init__(self, *words: object) -> None:
        self.ours, theirs = pty.openpty()
        environment = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "dumb"}
        command = [sys.executable, "-m", "pairform", "chat", *map(str, words)]
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True, cwd=ROOT
        )
        os.close(theirs)
        self.shown = ""

    def until(self, words: str, seconds: float = 60) -> str:
        """What is shown up to these words."""
        end = time.monotonic() + seconds
        while words not in self.shown:
            ready, _, _ = select.select([self.ours], [], [], max(0, end - time.monotonic()))
            assert ready, f"no {words!r} in {self.shown[-500:]!r}"
            self.shown += os.read(self.ours, 4096).decode()
        before, _, self.shown = self.shown.partition(words)
        return before

    def type(self, text: str) -> None:
        os.write(self.ours, text.encode())

    def close(self) -> None:
        os.close(self.ours)
        self.process.kill()
        self.process.wait()


@pytest.fixture
def terminal(alone: Path) -> Iterator[Terminal]:
    made = Terminal(alone, "--do-sample", "--temperature", 50, "--max-new-tokens", 100_000, "--suppress-tokens", "[1]")
    yield made
    made.close()


def test_ctrl_c_stops_an_answer_and_ctrl_d_ends(terminal: Terminal) -> None:
    for message in ("the fox\n", "a dog\n"):
        terminal.until("> ")
        terminal.type(message)
        for _ in range(4):
            terminal.until(" word")
        os.kill(terminal.process.pid, signal.SIGINT)
        terminal.until("note: stopped; what was said is kept")
    terminal.until("> ")
    time.sleep(0.5)  # Python handles a signal before readline waits only at the next key
    os.kill(terminal.process.pid, signal.SIGINT)
    terminal.until("Ctrl-D or /exit ends the chat")
    terminal.until("> ")
    terminal.type("\x04")
    assert terminal.process.wait(60) == 0
