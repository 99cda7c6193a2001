"""A pair whose encoder has a tokenizer of its own: each side reads its own tokens, wherever text becomes tokens."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

import pairform
from pairform.cli.text import TextModel
from pairform.training.adaptation.preparation import prepare as prepare_run
from pairform.training.adaptation.recipe import read_recipe
from pairform.training.adaptation.run import adapt
from pairform.training.data.batches import Ids
from pairform.training.data.corpus.prepare import prepare
from pairform.training.data.encoder_tokens import EncoderTokens
from pairform.training.data.objectives import IGNORED
from pairform.training.data.pairs import Pairs
from pairform.training.data.texts import Text
from pairform.training.data.tokenizer_files import read_tokenizer
from pairform.training.data.tokens import open_tokens
from tests.adaptation.small_run import WORDS
from tests.broken.damage import refused
from tests.checkpoints import gemma2

ENCODER = ["<cls>", "<sep>", "<end>", "<pad>", "<unk>", *reversed(WORDS)]
DECODER = ["<pad>", "<eos>", "<bos>", "<unk>", *WORDS]
SPARE = 20


def words(folder: Path, vocabulary: list[str], around: str) -> Path:
    """A tokenizer with one token a word, and special tokens around a text."""
    folder.mkdir(parents=True, exist_ok=True)
    table = {word: number for number, word in enumerate(vocabulary)}
    made = Tokenizer(models.WordLevel(table, "<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    named = [part for part in around.split() if part.startswith("<")]
    made.post_processor = processors.TemplateProcessing(single=around, special_tokens=[(name, table[name]) for name in named])
    made.add_special_tokens([word for word in vocabulary if word.startswith("<")])
    made.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, Any]:
    """Folders of an encoder's source, whose pad token is 3, and of a decoder's."""
    encoder = gemma2(tmp_path / "encoder", vocab_size=len(ENCODER) + SPARE, pad_token_id=3, eos_token_id=2, bos_token_id=0)
    decoder = gemma2(tmp_path / "decoder", seed=1, vocab_size=len(DECODER) + SPARE, hidden_size=24)
    return {"encoder": words(encoder, ENCODER, "<cls> $A <sep>"), "decoder": words(decoder, DECODER, "<bos> $A")}


def write_run(folder: Path, model: Any, objective: dict[str, Any], kind: str = "text") -> Path:
    draws = np.random.default_rng(0)
    texts = [" ".join(draws.choice(WORDS, size=30)) for _ in range(40)]
    pairs = [{"source": " ".join(text.split()[:9]), "target": " ".join(text.split()[9:])} for text in texts]
    lines = pairs if kind == "pairs" else [{"text": text} for text in texts]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    fields = {"source": "source", "target": "target"} if kind == "pairs" else {}
    corpus = {"sources": [{"files": ["corpus.jsonl"], **fields}], "tokenizer": "decoder", "held_out": 0.2}
    (folder / "corpus.json").write_text(json.dumps(corpus))
    prepare(folder / "corpus.json", folder / "shards")
    recipe = {
        "model": model,
        "data": {"shards": "shards", "objective": objective},
        "batch": {"tokens": 256, "micro": 4},
        "steps": 2,
        "optimizer": {"learning_rate": 0.003},
        "checkpoint": {"every": 2},
        "evaluation": {"every": 2, "rows": 4, "generate": {"prompts": 1, "max_new_tokens": 3}},
    }
    (folder / "recipe.json").write_text(json.dumps(recipe))
    return folder / "recipe.json"


PREFIX = {"name": "prefix_lm", "source": 16, "target": 16}
CASES: list[Any] = [
    pytest.param(PREFIX, "text", id="prefix_lm"),
    pytest.param({"name": "span_corruption", "window": 32, "denoisers": [{"span": 3, "rate": 0.3}]}, "text", id="spans"),
    pytest.param({"name": "pairs", "source": 16, "target": 32}, "pairs", id="pairs"),
]


@pytest.mark.parametrize(("objective", "kind"), CASES)
def test_each_side_of_a_batch_is_in_its_own_tokens(
    objective: dict[str, Any], kind: str, sources: dict[str, Any], tmp_path: Path
) -> None:
    model = {"convert": {part: str(folder) for part, folder in sources.items()}}
    recipe, place = read_recipe(write_run(tmp_path, model, objective, kind))
    prepared = prepare_run(recipe, place, tmp_path / "run", 1)
    encoder, decoder = (read_tokenizer(folder / "tokenizer.json") for folder in sources.values())
    batch = prepared.batches.batch(0)
    spelt = set()
    for micro in batch.micro:
        assert set(micro.inputs["input_ids"][~micro.inputs["attention_mask"]].tolist()) <= {3}
        for row in micro.rows:
            for source, target in row:
                assert (source[0], source[-1]) == (ENCODER.index("<cls>"), ENCODER.index("<sep>"))
                assert len(source) <= 40
                read = [token for token in source.tolist() if token >= len(ENCODER)]
                written = [token for token in target.tolist() if token >= len(DECODER)]
                assert [token - len(ENCODER) for token in read] == [token - len(DECODER) for token in written]
                spelt |= set(encoder.decode(source.tolist()).split()) & set(WORDS)
                spelt |= set(decoder.decode(target[target != IGNORED].tolist()).split())
                assert "<unk>" not in encoder.decode(source.tolist(), skip_special_tokens=False)
    assert spelt >= set(WORDS)
    assert bool(read) == (objective["name"] == "span_corruption")


def test_the_text_of_a_window_is_read_and_continued(sources: dict[str, Any], tmp_path: Path) -> None:
    """The source and the target of a window are the text that the data has there."""
    model = {"convert": {part: str(folder) for part, folder in sources.items()}}
    recipe, place = read_recipe(write_run(tmp_path, model, PREFIX))
    prepared = prepare_run(recipe, place, tmp_path / "run", 1)
    texts = [json.loads(line)["text"] for line in (tmp_path / "corpus.jsonl").read_text().splitlines()]
    rows, _ = prepared.batches.read(0)
    pieces = [piece for row in rows for piece in row]
    assert len(pieces) > 4
    for source, target in pieces:
        text = f"{prepared.sources.decode(source.tolist())} {prepared.tokens.decode(target.tolist())}".strip()
        assert any(text in each for each in texts)


def test_a_run_trains_resumes_and_keeps_both_tokenizers(sources: dict[str, Any], tmp_path: Path) -> None:
    model = {"convert": {part: str(folder) for part, folder in sources.items()}}
    recipe = write_run(tmp_path, model, PREFIX)
    run = adapt(recipe, tmp_path / "run")
    sample = json.loads((run / "samples.jsonl").read_text().splitlines()[-1])
    assert set(sample["source"].split()) <= set(WORDS)
    document = json.loads(recipe.read_text())
    assert (run / "companions" / "encoder_tokenizer" / "tokenizer.json").is_file()
    # a run that begins with the converted model reads the same batches
    first, _ = read_recipe(recipe)
    recipe.write_text(json.dumps(document | {"model": str(run / "initial")}))
    second, _ = read_recipe(recipe)
    batches = [prepare_run(each, tmp_path, tmp_path / "other", 1).batches.batch(1) for each in (first, second)]
    for one, two in zip(batches[0].micro, batches[1].micro, strict=True):
        assert all(one.inputs[name].equal(two.inputs[name]) for name in one.inputs)


def test_a_teacher_of_two_tokenizers_is_refused(sources: dict[str, Any], tmp_path: Path) -> None:
    model = {"convert": {part: str(folder) for part, folder in sources.items()}}
    file = write_run(tmp_path, model, PREFIX)
    teacher = {"distillation": {"teacher": str(sources["decoder"])}}
    file.write_text(json.dumps(json.loads(file.read_text()) | teacher))
    recipe, place = read_recipe(file)
    refused(lambda: prepare_run(recipe, place, tmp_path / "run", 1), "distillation", "tokenizer of its own")


def test_text_and_its_companions_by_side(sources: dict[str, Any], tmp_path: Path) -> None:
    """In conversion from the pair again, in both stacks alone, and in generation."""
    pairform.convert(**sources, out=tmp_path / "pair")
    pairform.convert(encoder=tmp_path / "pair", decoder=tmp_path / "pair", out=tmp_path / "again")
    files = {part: (folder / "tokenizer.json").read_bytes() for part, folder in sources.items()}
    other = gemma2(tmp_path / "other", seed=5, vocab_size=len(DECODER) + SPARE)
    words(other, [*DECODER, "other"], "<bos> $A")
    pairform.convert(encoder=tmp_path / "pair", decoder=other, out=tmp_path / "third")
    for folder in ("pair", "again", "third"):
        assert (tmp_path / folder / "encoder_tokenizer" / "tokenizer.json").read_bytes() == files["encoder"]
    assert (tmp_path / "again" / "tokenizer.json").read_bytes() == files["decoder"]
    for part, content in files.items():
        pairform.extract(tmp_path / "again", tmp_path / part / "alone", part=part)  # type: ignore[arg-type]
        assert (tmp_path / part / "alone" / "tokenizer.json").read_bytes() == content
        assert not (tmp_path / part / "alone" / "encoder_tokenizer").exists()
    model = TextModel(str(tmp_path / "again"))
    assert model.encode("the cat") == [0, ENCODER.index("the"), ENCODER.index("cat"), 1]
    assert model.decode([DECODER.index("the"), DECODER.index("cat")]) == "the cat"


def test_long_sources_keep_their_special_tokens(sources: dict[str, Any]) -> None:
    pair = pairform.plan(**sources).spec
    encoder, decoder = (read_tokenizer(folder / "tokenizer.json") for folder in sources.values())
    made = EncoderTokens.of(pair, open_tokens(Ids.of(pair, "decoder"), decoder), encoder)
    source = np.array([DECODER.index(word) for word in ("the", "small", "cat")], np.int32)
    for longest, last, kept in ((9, False, "the small cat"), (4, False, "the small"), (4, True, "small cat")):
        read = [ENCODER[token] for token in made(source, longest, last=last)]
        assert read == ["<cls>", *kept.split(), "<sep>"]
    assert not len(made(source[:0], 4))
    assert not len(made(np.array([1], np.int32), 4))


def test_a_vocabulary_smaller_than_the_encoders_tokenizer(sources: dict[str, Any], tmp_path: Path) -> None:
    words(sources["encoder"], [*ENCODER, *(f"word{number}" for number in range(100))], "<cls> $A <sep>")
    model = {"convert": {part: str(folder) for part, folder in sources.items()}}
    recipe, place = read_recipe(write_run(tmp_path, model, PREFIX))
    refused(lambda: prepare_run(recipe, place, tmp_path / "run", 1), "encoder.vocabulary", "smaller than the tokenizer's")


@pytest.mark.parametrize("kind", ["text", "pairs"])
def test_a_study_reads_each_side_by_its_tokenizer(kind: str, sources: dict[str, Any], tmp_path: Path) -> None:
    """A decoder-only variant reads both sides in the decoder's tokens."""
    write_run(tmp_path, "model", PREFIX, kind)
    data: dict[str, Any] = {
        "name": kind,
        "train": ["corpus.jsonl"],
        "held_out": ["held_out.jsonl"],
        "tokenizer": "decoder/tokenizer.json",
        "encoder_tokenizer": "encoder/tokenizer.json",
    }
    (tmp_path / "held_out.jsonl").write_bytes((tmp_path / "corpus.jsonl").read_bytes())
    data |= {"objective": PREFIX} if kind == "text" else {}
    contents = (Text if kind == "text" else Pairs).read(data).gather(tmp_path)
    assert {"decoder/tokenizer.json", "encoder/tokenizer.json"} <= contents.digests.keys()
    for source, target in contents.open(pairform.plan(**sources).spec).train(0, 0, 8):
        assert (source[0], source[-1]) == (ENCODER.index("<cls>"), ENCODER.index("<sep>"))
        assert all(ENCODER[token] in WORDS for token in source[1:-1])
        assert {DECODER[token] for token in target} <= {*WORDS, "<eos>"}
    for source, _ in contents.open(pairform.load_spec(sources["decoder"])).train(0, 0, 8):
        assert {DECODER[token] for token in source} <= {*WORDS, "<eos>"}
    without = {field: value for field, value in data.items() if field != "tokenizer"}
    refused(lambda: (Text if kind == "text" else Pairs).read(without).gather(tmp_path), "data.encoder_tokenizer", "tokenizer")
