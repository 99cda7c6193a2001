"""From text or token ids to text or token ids."""

import shutil
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer

import pairform
from pairform.cli.generation.text_stream import TextStream
from tests import small_vision
from tests.broken.damage import edit_json
from tests.command_line.runner import CommandLine, document, refused

TEXT = "the quick brown fox"


def test_generate_reads_and_writes_text(run: CommandLine, pair: Path) -> None:
    sampling = ["--do-sample", "--temperature", 50, "--seed", 1, "--max-new-tokens", 8]
    found = document(run("generate", pair, "--text", TEXT, *sampling, "--json"))
    assert found["input_ids"] == [2, 4, 5, 6, 7]
    assert found["text"] == Tokenizer.from_file(str(pair / "tokenizer.json")).decode(found["output_ids"])
    assert len(found["text"].split()) > 3
    assert run("generate", pair, "--text", TEXT, *sampling).out == found["text"] + "\n"


def test_an_answer_of_special_tokens_alone_is_explained(run: CommandLine, pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A skipped token leaves an empty line, which would look as if nothing had been written."""
    monkeypatch.setattr(pairform.Model, "generate", lambda *_, **__: torch.tensor([[2, 2, 0, 1]]))
    result = run("generate", pair, "--text", TEXT)
    assert (result.code, result.out) == (0, "\n")
    assert result.err == "note: wrote no text, only special tokens: 2 0 1\n"
    assert run("generate", pair, "--text", TEXT, "--json").err == ""


def test_written_text_cannot_steer_a_terminal(run: CommandLine, pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Newlines and tabs are text, and so are the joiners of emoji and of Persian."""
    written = "\x1b[2J\x1b]0;x\x07\u202eone\r\n\ttwo \x9b \U0001f469\u200d\U0001f680"
    monkeypatch.setattr("pairform.cli.text.TextModel.decode", lambda *_: written)
    out = run("generate", pair, "--text", TEXT, "--max-new-tokens", 1).out
    assert out == "\\x1b[2J\\x1b]0;x\\x07\\u202eone\\r\n\ttwo \\x9b \U0001f469\u200d\U0001f680\n"
    assert document(run("generate", pair, "--text", TEXT, "--max-new-tokens", 1, "--json"))["text"] == written


def test_generate_reads_and_writes_ids_without_a_tokenizer(run: CommandLine, pair: Path, tmp_path: Path) -> None:
    pairform.save(pairform.load(pair), tmp_path / "bare")
    words = ["--ids", "2 4,5", "--max-new-tokens", 4]
    found = document(run("generate", tmp_path / "bare", *words, "--json"))
    model = pairform.load(pair)
    assert found["output_ids"] == model.generate(torch.tensor([[2, 4, 5]]), max_new_tokens=4)[0, 1:].tolist()
    assert run("generate", tmp_path / "bare", *words).out.split() == [str(token) for token in found["output_ids"]]
    refused(run("generate", tmp_path / "bare", "--text", TEXT), 1, "tokenizer.json", "--ids")


def test_text_ends_at_any_end_token_of_the_folder(run: CommandLine, sources: tuple[Path, Path], tmp_path: Path) -> None:
    words = ["--ids", "2 4 5", "--max-new-tokens", 8]
    free = run("generate", sources[1], *words).out.split()
    folder = Path(shutil.copytree(sources[1], tmp_path / "model"))
    edit_json(folder / "generation_config.json", lambda found: found.update(eos_token_id=[1, int(free[2])]))
    assert run("generate", folder, *words).out.split() == free[: free.index(free[2]) + 1]


def test_sampling_depends_on_its_options(run: CommandLine, pair: Path) -> None:
    def ids(*options: object) -> list[int]:
        common = ["--ids", "4 5 6", "--do-sample", "--max-new-tokens", 12, "--json"]
        found: list[int] = document(run("generate", pair, *common, *options))["output_ids"]
        return found

    wild = ["--temperature", 50, "--seed", 3]
    assert ids(*wild) == ids(*wild)
    assert ids(*wild) != ids("--temperature", 50, "--seed", 4)
    greedy = document(run("generate", pair, "--ids", "4 5 6", "--max-new-tokens", 12, "--json"))["output_ids"]
    assert ids(*wild, "--top-k", 1) == ids(*wild, "--top-p", 0.001) == greedy


def test_generate_computes_in_the_dtype_it_is_given(run: CommandLine, pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dtypes = []

    def generate(model: pairform.Model, ids: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        dtypes.append(next(model.parameters()).dtype)
        return ids

    monkeypatch.setattr(pairform.Model, "generate", generate)
    run("generate", pair, "--ids", "4", "--dtype", "float64", "--device", "cpu")
    run("generate", pair, "--ids", "4")
    assert dtypes == [torch.float64, torch.float32]


@pytest.mark.parametrize("option", [("--temperature", 0.5), ("--top-k", 3), ("--top-p", 0.9), ("--seed", 1)])
def test_sampling_options_need_do_sample(run: CommandLine, pair: Path, option: tuple[str, float]) -> None:
    refused(run("generate", pair, "--ids", "5", *option), 2, option[0], "--do-sample")


VARIED = ["--repetition-penalty", 5.0, "--max-new-tokens", 8]
"""Wide random weights alone repeat one word."""


def test_text_is_printed_while_it_is_generated(run: CommandLine, pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run("generate", pair, "--text", TEXT, *VARIED, "--no-stream")
    assert len(set(whole.out.split())) == 8
    printed: list[str] = []
    put = TextStream.put

    def seen(stream: TextStream, token: int) -> str:
        printed.append(put(stream, token))
        return printed[-1]

    monkeypatch.setattr(TextStream, "put", seen)
    assert run("generate", pair, "--text", TEXT, *VARIED) == whole
    assert not printed
    assert run("generate", pair, "--text", TEXT, *VARIED, "--stream") == whole
    assert [piece.strip() for piece in printed] == whole.out.split()
    words = ["--ids", "2 4 5", *VARIED]
    assert run("generate", pair, *words, "--stream") == run("generate", pair, *words)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)  # as a terminal's
    printed.clear()
    assert run("generate", pair, "--text", TEXT, *VARIED) == whole
    assert printed
    refused(run("generate", pair, *words, "--stream", "--num-beams", 2), 2, "--stream", "beams")


def test_streamed_text_cannot_steer_a_terminal(run: CommandLine, pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pairform.cli.text.TextModel.decode", lambda _, ids: "\x1b[2J\n" * len(ids))
    out = run("generate", pair, "--text", TEXT, "--max-new-tokens", 2, "--stream").out
    assert out == "\\x1b[2J\n" * 2 + "\n"


@pytest.mark.parametrize("alone", [True, False], ids=["a decoder alone", "a pair"])
def test_settings_are_options(run: CommandLine, sources: tuple[Path, Path], pair: Path, alone: bool, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sources[1] if alone else pair, tmp_path / "model"))
    model, ids = pairform.load(folder), torch.tensor([[2, 4, 5, 6]])
    start = 4 if alone else 1
    chosen: tuple[tuple[list[object], dict[str, object], int | None], ...] = (
        (["--no-repeat-ngram-size", 2, "--min-new-tokens", 4], {"no_repeat_ngram_size": 2, "min_new_tokens": 4}, None),
        (["--bad-words-ids", "[[5], [6, 6]]"], {"bad_words_ids": [[5], [6, 6]]}, None),
        (["--num-beams", 3, "--early-stopping", "never"], {"num_beams": 3, "early_stopping": "never"}, None),
        (["--eos-token-id", "[1, 6]"], {"eos_token_id": [1, 6]}, None),
        (["--do-sample", "--top-k", 5, "--min-p", 0.1, "--seed", 3], {"do_sample": True, "top_k": 5, "min_p": 0.1}, 3),
    )
    for words, settings, seed in chosen:
        out = run("generate", folder, "--ids", "2 4 5 6", "--max-new-tokens", 9, *words).out
        output_ids = model.generate(ids, max_new_tokens=9, seed=seed, generation_config=settings)
        assert list(map(int, out.split())) == output_ids[0, start:].tolist()
    edit_json(folder / "generation_config.json", lambda found: found.update(no_repeat_ngram_size=1, max_new_tokens=7))
    assert len(set(run("generate", folder, "--ids", "2 4 5 6").out.split())) == 7
    stop = run("generate", folder, "--text", TEXT).out.split()[2]
    assert run("generate", folder, "--text", TEXT, "--stop-strings", stop, "--stop-strings", "?").out.split()[-1] == stop
    refused(run("generate", folder, "--ids", "4", "--top-p", 2.0), 2, "--top-p", "2.0", "less than or equal to 1")
    refused(run("generate", folder, "--ids", "4", "--bad-words-ids", "[[-1]]"), 2, "--bad-words-ids", "-1")


def test_several_sequences_of_one_input(run: CommandLine, pair: Path) -> None:
    words = ["--text", TEXT, "--num-beams", 3, "--num-return-sequences", 2, "--max-new-tokens", 4]
    found = document(run("generate", pair, *words, "--json"))
    best = pairform.load(pair).generate(
        torch.tensor([found["input_ids"]]), num_beams=3, num_return_sequences=2, max_new_tokens=4
    )
    assert found["output_ids"] == best[:, 1:].tolist()
    assert run("generate", pair, *words).out.splitlines() == found["text"]


def test_pictures(run: CommandLine, seeing: Path, tmp_path: Path) -> None:
    """Their places are where the text has the begin token, else in front; ids may hold all tokens."""
    model = pairform.load(seeing)
    files = [tmp_path / "one.png", tmp_path / "two.png"]
    for file, colour in zip(files, ("red", "blue"), strict=True):
        Image.new("RGB", (20, 16), colour).save(file)
    images = ["--image", files[0], "--image", files[1]]
    picture = [4, *[small_vision.IMAGE] * small_vision.TOKENS, 5]
    for words_given, ids in (
        (["--text", "the <image> fox <image>"], [2, 7, *picture, 8, *picture]),
        (["--text", "the fox"], [2, *picture, *picture, 7, 8]),
        (["--ids", " ".join(map(str, [7, *picture, *picture]))], [7, *picture, *picture]),
    ):
        found = document(run("generate", seeing, *words_given, *images, *VARIED, "--json"))
        assert found["input_ids"] == ids
        pixels = pairform.read_pictures(files, model)
        expected = model.generate(torch.tensor([ids]), pixel_values=pixels, repetition_penalty=5.0, max_new_tokens=8)
        assert found["output_ids"] == expected[0, len(ids) if model.encoder is None else 1 :].tolist()
    refused(run("generate", seeing, "--text", "the <image> fox", *images), 1, "1 places", "2 places")
    refused(run("generate", seeing, "--text", "the fox", "--image", tmp_path / "none.png"), 1, "none.png")


def test_a_model_without_vision_reads_no_pictures(run: CommandLine, pair: Path, tmp_path: Path) -> None:
    Image.new("RGB", (20, 16)).save(tmp_path / "one.png")
    refused(run("generate", pair, "--text", TEXT, "--image", tmp_path / "one.png"), 1, "encoder.vision", "no pictures")
