"""`pairform data`: prepare and show."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pairform.training.data.corpus.shards import Shards
from tests.command_line.runner import CommandLine, document, refused
from tests.corpus.small import texts, word_tokenizer, write_corpus


def test_a_corpus_is_prepared_and_shown(run: CommandLine, tmp_path: Path) -> None:
    word_tokenizer(tmp_path / "words.json")
    rows = [{"text": text, "reverse": text[::-1]} for text in ["the <eos> fox", *texts(99), ""]]
    sources = [
        {"name": "words", "files": ["corpus.jsonl"], "weight": 0.5},
        {"name": "pairs", "files": ["corpus.jsonl"], "source": "text", "target": "reverse"},
    ]
    corpus = write_corpus(tmp_path, rows, sources=sources, tokenizer="words.json", held_out=0.2)
    result = run("data", "prepare", corpus, "--out", tmp_path / "out", "--jobs", 2)
    assert result.code == 0, result.err
    found = document(run("data", "prepare", corpus, "--out", tmp_path / "out", "--json"))
    assert found["digest"] == Shards.open(tmp_path / "out").digest
    assert found["digest"] in result.out
    words, pairs = found["sources"]
    assert (words["name"], words["kind"], words["weight"], words["dropped"], words["files"]) == ("words", "text", 0.5, 1, 1)
    assert words["train"]["documents"] + words["held_out"]["documents"] == 100
    assert pairs["kind"] == "pairs"
    assert "sample" not in words
    (stream,) = Shards.open(tmp_path / "out").train
    assert words["train"]["tokens"] == stream.length - stream.documents
    shown = document(run("data", "show", tmp_path / "out", "--verify", "--json"))
    assert shown["sources"][0]["sample"].keys() == {"text"}
    assert shown["sources"][1]["sample"].keys() == {"source", "target"}
    assert shown["digest"] == found["digest"]
    assert set(shown["sources"][0]["sample"]["text"].split()) <= {*" ".join(texts(99)).split(), "the", "<unk>", "fox"}


def test_samples_are_escaped_and_short(run: CommandLine, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path, ["\x1b[2J\nü" + "x" * 2000])
    assert run("data", "prepare", corpus, "--out", tmp_path / "out").code == 0
    result = run("data", "show", tmp_path / "out")
    assert "corpus.jsonl (text): \\x1b[2J\\nüxxx" in result.out
    assert "\x1b" not in result.out
    assert len(result.out) < 600


def test_errors_of_the_commands(run: CommandLine, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path, texts(3))
    refused(run("data", "prepare", tmp_path / "no.json", "--out", tmp_path / "out"), 1, "no.json", "no such file")
    refused(run("data", "prepare", corpus), 2, "--out")
    refused(run("data", "prepare", corpus, "--out", tmp_path / "out", "--jobs", 0), 2, "--jobs")
    refused(run("data", "prepare", corpus, "--out", ""), 2, "empty path")
    refused(run("data", "prepare", corpus, "--out", tmp_path), 1, "corpus.json, corpus.jsonl", "nothing else")
    refused(run("data", "show", tmp_path / "out"), 1, "no such folder", "`pairform data prepare`")
    assert run("data", "prepare", corpus, "--out", tmp_path / "out").code == 0
    shard = tmp_path / "out" / "000-train-00000.tokens"
    shard.write_bytes(shard.read_bytes()[::-1])
    refused(run("data", "show", tmp_path / "out", "--verify"), 1, shard.name, "SHA-256")
    write_corpus(tmp_path, texts(4))
    refused(run("data", "prepare", corpus, "--out", tmp_path / "out"), 1, "--overwrite")
    assert run("data", "prepare", corpus, "--out", tmp_path / "out", "--overwrite").code == 0


@pytest.mark.parametrize("jobs", [1, 2])
def test_neither_torch_nor_modules_of_the_current_folder_are_imported(jobs: int, tmp_path: Path) -> None:
    """Workers may start in a stranger's folder."""
    corpus = write_corpus(tmp_path, texts(3))
    (tmp_path / "numpy.py").write_text("raise SystemExit('imported')")
    program = "import sys; sys.path.remove(''); from pairform.cli.main import app; app(sys.argv[1:], standalone_mode=False)"
    program += "; assert 'torch' not in sys.modules"
    words = ["data", "prepare", corpus.name, "--out", "out", "--jobs", str(jobs), "--json"]
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": root}
    done = subprocess.run(
        [sys.executable, "-c", program, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["sources"][0]["train"]["documents"] == 3


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files")
def test_a_disk_that_is_full_in_the_midst_of_a_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path, texts(5000))
    program = "from pairform.cli.main import main; main()"
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)); {program}"
    words = ["data", "prepare", str(corpus), "--out", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-c", limited, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("error: ") == 1
    assert "000-train-00000.tokens: found File too large" in done.stderr
    assert not (tmp_path / "out" / "manifest.json").exists()
    subprocess.run([sys.executable, "-c", program, *words], check=True, capture_output=True)
    assert Shards.open(tmp_path / "out").train[0].documents == 5000
