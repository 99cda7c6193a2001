"""Folders of sentence-transformers, written and read, against the library's own `encode`."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
from transformers import AutoModel, AutoModelForTextEncoding, AutoTokenizer, T5Config, T5ForConditionalGeneration

import pairform
import pairform.interop.transformers  # registers the class of encoders that transformers has none for
from tests.checkpoints import SMALL, gemma3_text, t5gemma, t5gemma2
from tests.small_pairs import small_pair
from tests.tokenizers_small import tokenizer

TEXTS = ["the quick brown fox", "a lazy dog", "word5 jumps over the lazy dog fox a fox"]
HEADS: list[dict[str, Any]] = [
    {"name": "sentence_embedding"},
    {"name": "sentence_embedding", "pooling": "last", "projection": 16, "transform": {"activation": "tanh"}},
    {"name": "sentence_embedding", "projection": 8, "transform": {"activation": "identity", "bias": False, "width": 48}},
    {"name": "contrastive", "pooling": "first", "normalise": False},
]


def embedder(folder: Path, head: dict[str, Any], preset: str = "t5gemma-b-b", reach: int = 20) -> Path:
    """An encoder with that head and a tokenizer. transformers' windows of T5Gemma differ from ours beyond `reach`."""
    changes: dict[str, Any] = {"cycle": [{"branches": {"self_attention": {"mask": {"window": [reach, reach]}}}}]}
    document = small_pair(preset, vocabulary=SMALL["vocab_size"], initializer_range=1.0, encoder=changes).document()
    spec = pairform.load_spec(document | {"assembly": "encoder_only", "decoder": None, "tie_embeddings": False, "head": head})
    pairform.save(pairform.build(spec, seed=0), folder)
    return tokenizer(folder)


@torch.no_grad()
def ours(folder: Path, texts: list[str] = TEXTS) -> torch.Tensor:
    """The pooled output, of texts padded together."""
    read = AutoTokenizer.from_pretrained(folder)(texts, return_tensors="pt", padding=True)
    logits = pairform.load(folder)(read["input_ids"], read["attention_mask"]).logits
    assert logits is not None
    return logits


def theirs(folder: Path, **options: Any) -> torch.Tensor:
    return torch.tensor(SentenceTransformer(str(folder), device="cpu").encode(TEXTS, **options))


@pytest.mark.parametrize("preset", ["t5gemma-b-b", "t5gemma2-270m-270m"])
@pytest.mark.parametrize("head", HEADS)
def test_encode_gives_our_embeddings_and_the_folder_is_read_back(preset: str, head: dict[str, Any], tmp_path: Path) -> None:
    """As T5GemmaEncoderModel, and as pairform's own class."""
    source, out = embedder(tmp_path / "source", head, preset), tmp_path / "out"
    pairform.export(source, out, format="sentence-transformers")
    expected = ours(source)
    assert expected.std() > 0.01
    torch.testing.assert_close(theirs(out), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(ours(out), expected, rtol=0, atol=1e-6)
    assert pairform.verify(out).ok


def test_prompts_and_matryoshka_dimensions(tmp_path: Path) -> None:
    source = embedder(tmp_path / "source", HEADS[0])
    options: dict[str, Any] = {"prompts": {"query": "the fox "}, "default_prompt": "query", "truncate_dim": 8}
    pairform.export(source, tmp_path / "out", format="sentence-transformers", **options)
    expected = ours(source, [f"the fox {text}" for text in TEXTS])[:, :8]
    torch.testing.assert_close(theirs(tmp_path / "out"), expected, rtol=0, atol=1e-6)
    # a second export keeps them
    pairform.export(tmp_path / "out", tmp_path / "again", format="sentence-transformers")
    torch.testing.assert_close(theirs(tmp_path / "again", prompt_name="query"), expected, rtol=0, atol=1e-6)
    with pytest.raises(pairform.PairformError, match="truncate_dim: found 33, expected a number of dimensions from 1 to 32"):
        pairform.export(source, tmp_path / "new", format="sentence-transformers", truncate_dim=33)
    assert not (tmp_path / "new").exists()


def test_a_window_that_transformers_widens_is_told(tmp_path: Path) -> None:
    told: list[str] = []
    source = embedder(tmp_path / "source", HEADS[0], reach=4)
    pairform.export(source, tmp_path / "out", format="sentence-transformers", tell=told.append)
    assert len(told) == 1
    assert "texts of more than 5 tokens" in told[0]


def test_an_export_is_overwritten_unless_it_holds_another_file(tmp_path: Path) -> None:
    source, out = embedder(tmp_path / "source", HEADS[0]), tmp_path / "out"
    for overwrite in (False, True):
        pairform.export(source, out, format="sentence-transformers", overwrite=overwrite)
    (out / "1_Pooling" / "notes.txt").write_text("mine")
    with pytest.raises(pairform.PairformError, match=r"1_Pooling/notes\.txt beside the model"):
        pairform.export(source, out, format="sentence-transformers", overwrite=True)


def library_folder(tmp_path: Path, *later: Any) -> Path:
    """A folder that the library wrote, of a bidirectional Gemma 3 as EmbeddingGemma is."""
    base = gemma3_text(tmp_path / "base", "Gemma3TextModel", use_bidirectional_attention=True, is_causal=True)
    tokenizer(base)
    SentenceTransformer(modules=[Transformer(str(base)), *later], device="cpu").save(str(tmp_path / "theirs"))
    return tmp_path / "theirs"


def test_a_folder_of_the_library_is_read(tmp_path: Path) -> None:
    """EmbeddingGemma's modules: two dense layers without activation or bias."""
    torch.manual_seed(0)
    plain: dict[str, Any] = {"bias": False, "activation_function": torch.nn.Identity()}
    folder = library_folder(tmp_path, Pooling(32), Dense(32, 64, **plain), Dense(64, 24, **plain), Normalize())
    torch.testing.assert_close(ours(folder), theirs(folder), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("file", "field", "value", "message"),
    [
        ("2_Dense/config.json", "activation_function", "mine.Act", "found 'mine.Act', expected one of"),
        ("1_Pooling/config.json", "pooling_mode", "max", "found 'max', expected one of mean, cls, lasttoken"),
        ("1_Pooling/config.json", "include_prompt", False, "include_prompt: found false"),
        ("modules.json", "path", "../2_Dense", "found '../2_Dense', expected a folder as 1_Pooling"),
        ("modules.json", "type", "mine.Dense", "found 'mine.Dense', expected a class of sentence-transformers"),
    ],
)
def test_modules_that_are_no_head_are_refused(file: str, field: str, value: Any, message: str, tmp_path: Path) -> None:
    source, out = embedder(tmp_path / "source", HEADS[1]), tmp_path / "out"
    pairform.export(source, out, format="sentence-transformers")
    document = json.loads((out / file).read_text())
    (document[2] if isinstance(document, list) else document)[field] = value
    (out / file).write_text(json.dumps(document))
    with pytest.raises(pairform.PairformError, match=message):
        pairform.load(out)


@torch.no_grad()
def test_extracted_encoders_open_in_auto_classes(tmp_path: Path) -> None:
    """T5EncoderModel and T5GemmaEncoderModel are AutoModelForTextEncoding; T5Gemma 2's encoder is an AutoModel."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 96, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
    T5ForConditionalGeneration(T5Config(**sizes, decoder_start_token_id=0)).save_pretrained(tmp_path / "t5")
    wide = {"sliding_window": 60}
    t5gemma(tmp_path / "t5gemma", encoder=wide, decoder=wide)
    t5gemma2(tmp_path / "t5gemma2", pictures={"eoi_token_index": 256_000})
    ids = torch.randint(8, 90, (2, 9))
    for name, auto in (("t5", AutoModelForTextEncoding), ("t5gemma", AutoModelForTextEncoding), ("t5gemma2", AutoModel)):
        pairform.extract(tmp_path / name, tmp_path / f"{name}-encoder", format="transformers")
        opened, info = auto.from_pretrained(tmp_path / f"{name}-encoder", output_loading_info=True)
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]
        expected = pairform.load(tmp_path / f"{name}-encoder")(ids, torch.ones_like(ids)).last_hidden_state
        torch.testing.assert_close(opened(ids, torch.ones_like(ids)).last_hidden_state, expected, rtol=1e-5, atol=1e-5)
