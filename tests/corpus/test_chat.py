"""Conversations become pairs through a chat template, which is a stranger's program."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from pairform.assemblies.preprocessing import chat_template, worker_process
from pairform.assemblies.preprocessing.chat_template import ChatTemplate
from pairform.training.data.corpus.chat import pairs as pairs_of
from pairform.training.data.corpus.prepare import prepare
from tests.broken.damage import refused
from tests.corpus.small import pairs, word_tokenizer, write_corpus

GEMMA = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{%- for message in messages %}
    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] %}
    {{- '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"""
"""Close to Gemma 2's."""
STYLES = [
    GEMMA,
    "{% for m in messages %}{% generation %}[{{ m | tojson }}]{% endgeneration %}{% endfor %}",
    "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% if ns.n > 9 %}{% break %}{% endif %}"
    "{{ ns.n * 2 }}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 2 * messages|length + 2 }}assistant: {% endif %}",
    "{% for m in messages %}\n  {% if loop.first %}\n<s>\n  {% endif %}\n{{ m['content'] }}|\n{% endfor %}",
]
SPECIAL = {"bos_token": "<bos>", "eos_token": "<eos>"}


def talk(*contents: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[turn % 2], "content": content} for turn, content in enumerate(contents)]


TALK = talk("the fox?", " a <dog> ü ", "lazy?", "quick")


@pytest.mark.parametrize("style", STYLES, ids=["gemma", "generation", "namespace", "blocks"])
def test_a_conversation_is_rendered_as_transformers_does(style: str, tmp_path: Path) -> None:
    word_tokenizer(tmp_path / "tokenizer.json")
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"), **SPECIAL)
    template = ChatTemplate(style, SPECIAL)
    for messages in (TALK[:2], TALK):
        ((source, target),) = pairs_of(template, messages, "", every=False)
        options: dict[str, Any] = {"tokenize": False, "chat_template": style}
        assert source == tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, **options)
        assert source + target == tokenizer.apply_chat_template(messages, **options)
        assert messages[-1]["content"].strip() in target


def test_answers_become_targets_the_last_one_or_each(tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_text("{% for m in messages %}{{ m.role[0] }}:{{ m.content }};{% endfor %}")
    rows = [{"chat": TALK}, {"chat": talk("alone")}, {"chat": talk("q", "a", "more")}]
    for answers, wanted in (
        ("last", [(b"u:the fox?;a: a <dog> \xc3\xbc ;u:lazy?;", b"a:quick;"), (b"u:q;", b"a:a;")]),
        (
            "all",
            [
                (b"u:the fox?;", b"a: a <dog> \xc3\xbc ;"),
                (b"u:the fox?;a: a <dog> \xc3\xbc ;u:lazy?;", b"a:quick;"),
                (b"u:q;", b"a:a;"),
            ],
        ),
    ):
        source = {"files": ["corpus.jsonl"], "messages": "chat", "answers": answers}
        corpus = write_corpus(tmp_path, rows, sources=[source], chat_template="t.jinja")
        assert pairs(prepare(corpus, tmp_path / answers)) == [wanted]


@pytest.mark.parametrize("place", ["chat_template.jinja", "tokenizer_config.json", "a list of templates"])
def test_the_template_comes_with_the_tokenizer(place: str, tmp_path: Path) -> None:
    """Special tokens in it become ids, and `bos_token` is the tokenizer's."""
    (home := tmp_path / "model").mkdir()
    word_tokenizer(home / "tokenizer.json")
    template = "{{ bos_token }}{% for m in messages %}{{ m.content }}<eos>{% endfor %}"
    config: dict[str, Any] = {"bos_token": {"content": "<bos>"}}
    if place == "chat_template.jinja":
        (home / place).write_text(template)
    else:
        named = [{"name": "tools", "template": ""}, {"name": "default", "template": template}]
        config["chat_template"] = named if place == "a list of templates" else template
    (home / "tokenizer_config.json").write_text(json.dumps(config))
    source = {"files": ["corpus.jsonl"], "messages": "chat"}
    corpus = write_corpus(tmp_path, [{"chat": talk("the", "fox")}], sources=[source], tokenizer="model")
    source_ids, target_ids = prepare(corpus, tmp_path / "out").train_pairs[0].pair(0)
    assert (source_ids.tolist(), target_ids.tolist()) == ([2, 4, 1], [7, 1])


BROKEN = {
    "no list": ("hello", "corpus.jsonl: line 1: chat", "'hello'", "a list of objects"),
    "other names": ([{"from": "human", "value": "hi"}], "chat[0]", "no field 'role'", "'from', 'value'"),
    "no content": ([{"role": "user", "content": None}], "chat[0]", "no field 'content'"),
    "half of a character": (talk("\ud800", "a"), "chat[0]", "half of a surrogate pair"),
    "a message that is none": (["hello"], "chat[0]", "'hello'"),
    "a system message": ([{"role": "system", "content": "x"}, *talk("a", "b")], "System role not supported"),
}


@pytest.mark.parametrize("row", BROKEN.values(), ids=BROKEN)
def test_a_broken_conversation_is_refused(row: tuple[Any, ...], tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_text(GEMMA)
    source = {"files": ["corpus.jsonl"], "messages": "chat"}
    corpus = write_corpus(tmp_path, [{"chat": row[0]}], sources=[source], chat_template="t.jinja")
    refused(lambda: prepare(corpus, tmp_path / "out"), *row[1:])


HOSTILE = {
    "a file": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "a private attribute": "{% set ns = namespace(**{'_x': 1}) %}",
    "a changed message": "{{ messages.append(1) }}",
    "a number that never ends": "{{ 10 ** 10 ** 10 }}",
    "a number that grows": "{{ messages|length ** 9999999 ** 2 }}",
    "a text that fills memory": "{{ 'a' * 10 ** 10 }}",
    "a long text": "{% for a in range(90000) %}{{ 'abcdefghij' * 100 }}{% endfor %}",
    "a format that fills memory": "{{ '%099999999999d' % 1 }}",
    "a loop that never ends": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "a syntax error": "{% for %}",
    "no prefix": "{{ messages|length }}{% if add_generation_prompt %}x{% endif %}",
    "half of a character": "{{ '\\ud800' }}",
    "a clock": "{{ strftime_now('%Y') }}",
}


@pytest.mark.parametrize("style", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_template_is_refused_in_time(style: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_template, "SECONDS", 1.0)
    refused(lambda: pairs_of(ChatTemplate(style, SPECIAL), TALK, "here", every=False), "template")


def test_a_template_runs_in_a_process_with_little_memory(tmp_path: Path) -> None:
    """Where a value that it makes does not fit, also if one process was asked for."""
    (tmp_path / "t.jinja").write_text(f"{{{{ messages[0].content|center({worker_process.MEMORY}) }}}}")
    source = {"files": ["corpus.jsonl"], "messages": "chat"}
    corpus = write_corpus(tmp_path, [{"chat": talk("a", "b")}], sources=[source], chat_template="t.jinja")
    refused(lambda: prepare(corpus, tmp_path / "out"), "corpus.jsonl: line 1: chat", "too much memory")
