"""Conversions to another vocabulary: chosen tokens of the sources' tokenizer, or the tokens of another one."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import pairform
from pairform.assemblies.initialisation.plan import Plan
from pairform.assemblies.initialisation.vocabulary.tokenizer_file import TokenizerFile, with_needed
from pairform.registry import CheckpointError, PairformError, SpecError
from tests.checkpoints import gemma2

SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>"]
CONFIG = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": {"content": "<bos>"}, "unk_token": "<unk>"}
TEXTS = [
    "def forward(self, hidden: Tensor) -> Tensor:",
    "    return self.down_proj(activation(self.gate_proj(hidden)) * self.up_proj(hidden))",
    "for name, parameter in model.named_parameters():",
    "the encoder reads the source, and the decoder reads the encoder's output",
    "attention over the tokens of a window, with grouped keys and values",
    "naïve café façade — 1,234 tokens of 56 kinds",
] * 3
KINDS = ("byte-level BPE", "SentencePiece BPE", "Unigram", "WordPiece", "WordLevel")


@cache
def trained(kind: str, size: int = 160) -> Tokenizer:
    options: dict[str, Any] = {"vocab_size": size, "special_tokens": SPECIAL, "show_progress": False}
    if kind == "byte-level BPE":
        made = Tokenizer(models.BPE())
        made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        trainer: Any = trainers.BpeTrainer(
            **options | {"vocab_size": size + 200}, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        )
    elif kind == "SentencePiece BPE":
        made = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
        made.normalizer = normalizers.Replace(" ", "\u2581")
        made.decoder = decoders.Replace("\u2581", " ")
        trainer = trainers.BpeTrainer(**options)
    elif kind == "Unigram":
        made = Tokenizer(models.Unigram())
        made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        trainer = trainers.UnigramTrainer(**options, unk_token="<unk>")
    elif kind == "WordPiece":
        made = Tokenizer(models.WordPiece(unk_token="<unk>"))
        made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(**options)
    else:
        made = Tokenizer(models.WordLevel(unk_token="<unk>"))
        made.pre_tokenizer = pre_tokenizers.Whitespace()
        trainer = trainers.WordLevelTrainer(**options)
    made.train_from_iterator(TEXTS, trainer)
    made.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", made.token_to_id("<bos>"))]
    )
    return made


def source(folder: Path, tokenizer: Tokenizer, rows: int = 0) -> Path:
    """A model with this tokenizer, and `rows` more rows than tokens."""
    gemma2(folder, vocab_size=tokenizer.get_vocab_size() + rows, num_hidden_layers=1, tie_word_embeddings=False)
    return with_tokenizer(folder, tokenizer)


def with_tokenizer(folder: Path, tokenizer: Tokenizer) -> Path:
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(CONFIG))
    return folder


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_texts_of_kept_tokens_are_encoded_as_before(kind: str, data: st.DataObject) -> None:
    old = trained(kind)
    file = TokenizerFile(old.to_str().encode(), kind)
    wanted = data.draw(st.sets(st.integers(0, old.get_vocab_size() - 1), max_size=120))
    kept = sorted(with_needed(file, wanted))
    smaller = Tokenizer.from_str(file.keeping(kept).decode())
    new = {index: place for place, index in enumerate(kept)}
    assert smaller.get_vocab_size() == len(kept)
    words = data.draw(st.lists(st.sampled_from([word for text in TEXTS for word in text.split()]), max_size=6))
    for text in (*TEXTS[:6], " ".join(words)):
        ids = old.encode(text).ids
        if all(index in new for index in ids):
            assert smaller.encode(text).ids == [new[index] for index in ids]


@pytest.mark.parametrize("kind", KINDS)
def test_the_most_frequent_tokens_of_a_corpus(kind: str, tmp_path: Path) -> None:
    """Each kept token has its embedding, in both stacks and in the head; the tokenizer and the spec have the new ids."""
    old = trained(kind)
    model = source(tmp_path / "model", old, rows=3)
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("\n".join(json.dumps({"text": text}) for text in TEXTS[:2]))
    size = old.get_vocab_size() - 40
    report = pairform.convert(
        encoder=model, decoder=model, out=tmp_path / "pair", vocabulary={"corpus": str(corpus), "keep": size}
    )
    made, before = pairform.load(tmp_path / "pair"), pairform.load(model)
    kept = [old_id for (old_id,) in report.plan.vocabularies["decoder"].rows]
    assert made.spec.vocabulary == len(kept) == size
    assert before.decoder is not None
    for stack in (made.encoder, made.decoder):
        assert stack is not None
        assert torch.equal(stack.embedding.weight, before.decoder.embedding.weight[kept])
    assert torch.equal(made.head.weight, before.head.weight[kept])
    written = Tokenizer.from_file(str(tmp_path / "pair/tokenizer.json"))
    assert [written.id_to_token(place) for place in range(size)] == [old.id_to_token(index) for index in kept]
    assert written.token_to_id("<eos>") == made.spec.tokens.eos
    encoded = {text: ids for text in TEXTS[:2] if {*(ids := old.encode(text).ids)} <= {*kept}}
    assert encoded or kind == "WordLevel"  # which has more words than are kept
    for text, ids in encoded.items():
        assert [kept[index] for index in written.encode(text).ids] == ids
    # written again from the plan alone
    pairform.execute(Plan.read(report.plan.document()), tmp_path / "again")
    assert (tmp_path / "again/tokenizer.json").read_bytes() == (tmp_path / "pair/tokenizer.json").read_bytes()
    assert torch.equal(pairform.load(tmp_path / "again").head.weight, made.head.weight)


def test_a_list_of_tokens(tmp_path: Path) -> None:
    old = trained("WordLevel")
    model = source(tmp_path / "model", old)
    (tmp_path / "tokens.txt").write_text("encoder\ndecoder\n")
    plan = pairform.plan(encoder=model, decoder=model, vocabulary={"tokens": str(tmp_path / "tokens.txt")})
    kept = {old.id_to_token(row[0]) for row in plan.vocabularies["encoder"].rows}
    assert kept == {*SPECIAL, "encoder", "decoder"}
    (tmp_path / "tokens.txt").write_text("encoder\nno such word\n")
    with pytest.raises(SpecError, match="1 others: 'no such word'"):
        pairform.plan(encoder=model, decoder=model, vocabulary={"tokens": str(tmp_path / "tokens.txt")})


@pytest.mark.parametrize("kind", ["byte-level BPE", "SentencePiece BPE", "WordPiece"])
def test_another_tokenizer(kind: str, tmp_path: Path) -> None:
    """Shared tokens keep their embedding, others are the mean of the pieces that spell them, special ones go by their role."""
    old, new = trained(kind), trained("Unigram", 220)
    model, other = source(tmp_path / "model", old), with_tokenizer(tmp_path / "other", new)
    report = pairform.convert(encoder=model, decoder=model, out=tmp_path / "pair", vocabulary={"tokenizer": str(other)})
    rows = report.plan.vocabularies["decoder"].rows
    before, made = pairform.load(model), pairform.load(tmp_path / "pair")
    assert before.decoder is not None
    assert made.decoder is not None
    table = before.decoder.embedding.weight
    lengths = set()
    for row, embedding in zip(rows, made.decoder.embedding.weight, strict=True):
        lengths.add(min(len(row), 2))
        if row:
            torch.testing.assert_close(embedding, table[list(row)].mean(0))
    assert lengths >= {1, 2}
    for name in SPECIAL:
        assert rows[new.get_vocab()[name]] == (old.get_vocab()[name],)
    for word in ("encoder", "decoder", "reads"):
        place = new.token_to_id(f"\u2581{word}")
        if place is not None:
            assert (
                "".join(str(old.id_to_token(index)) for index in rows[place]).replace("##", "").lstrip("\u2581\u0120") == word
            )
    assert (tmp_path / "pair/tokenizer.json").read_bytes() == (other / "tokenizer.json").read_bytes()
    assert made.spec.vocabulary == new.get_vocab_size()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "found nothing, expected one of tokens, corpus and tokenizer"),
        ({"tokens": "a", "tokenizer": "b"}, "found tokens and tokenizer"),
        ({"corpus": "a"}, "keep: found no size"),
        ({"corpus": "nothing.txt", "keep": 20}, "no such file"),
        ({"corpus": "nothing.txt", "keep": 2}, "expected at least"),
        ({"corpus": "nothing.txt", "keep": 10**6}, "expected at most"),
        ({"tokenizer": "nothing"}, "no such file"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    model = source(tmp_path / "model", trained("WordLevel"))
    paths = {name: value if name == "keep" else str(tmp_path / value) for name, value in options.items()}
    with pytest.raises(PairformError, match=message):
        pairform.plan(encoder=model, decoder=model, vocabulary=paths)


def test_a_tokenizer_that_changed_after_planning(tmp_path: Path) -> None:
    model = source(tmp_path / "model", trained("WordLevel"))
    (tmp_path / "tokens.txt").write_text("encoder\n")
    plan = pairform.plan(encoder=model, decoder=model, vocabulary={"tokens": str(tmp_path / "tokens.txt")})
    trained("Unigram").save(str(model / "tokenizer.json"))
    with pytest.raises(CheckpointError, match="changed since"):
        pairform.execute(plan, tmp_path / "pair")
    assert not (tmp_path / "pair").exists()
