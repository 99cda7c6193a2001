"""Models of the hub are read wherever a model is named: at a revision, from the cache, and with errors that say what to do."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

import pairform
from tests.broken.damage import refused
from tests.checkpoints import gemma2
from tests.hub.repositories import Repository
from tests.hub.server import READER, Answer, Handler, Hub
from tests.hub.weights import same_weights

EMPTY: Mapping[str, bytes] = {}
ENDPOINTS = ("ENDPOINT", "HUGGINGFACE_CO_URL_TEMPLATE")


def publish(hub: Hub, name: str, folder: Path, branch: str = "main", extra: Mapping[str, bytes] = EMPTY) -> Repository:
    """Put a folder on the hub as it is."""
    found = hub.repositories.setdefault(name, Repository())
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    found.commit(branch, files | dict(extra))
    return found


@pytest.fixture
def gemma(hub: Hub, tmp_path: Path) -> dict[str, Path]:
    """`lab/gemma` with two versions: `main`, and the tag `v1` of another width."""
    folders = {"main": gemma2(tmp_path / "new", shard="60KB"), "v1": gemma2(tmp_path / "old", seed=1, hidden_size=16)}
    publish(hub, "lab/gemma", folders["main"])
    old = publish(hub, "lab/gemma", folders["v1"], "release/1")
    old.tags["v1"] = old.branches["release/1"]
    return folders


def test_every_function_takes_a_revision(gemma: dict[str, Path], tmp_path: Path) -> None:
    old = pairform.load_spec(gemma["v1"])
    for ref in ("lab/gemma@v1", "lab/gemma@release/1"):
        assert pairform.load_spec(ref) == old
        assert same_weights(pairform.load(ref), pairform.load(gemma["v1"]))
    assert pairform.load_spec("lab/gemma", revision="v1") == old
    assert pairform.inspect("lab/gemma", revision="v1") == pairform.inspect("lab/gemma@v1") == pairform.inspect(old)
    assert pairform.verify("lab/gemma@v1").parameters == pairform.verify("lab/gemma", revision="v1").parameters
    assert not pairform.diff("lab/gemma@v1", gemma["v1"])
    assert "width 16" in pairform.diagram("lab/gemma@v1", "mermaid")
    pairform.export("lab/gemma@v1", tmp_path / "export", format="pairform")
    pairform.export("lab/gemma", tmp_path / "same", format="pairform", revision="v1")
    pairform.extract("lab/gemma@v1", tmp_path / "part", part="decoder")
    for name in ("export", "same", "part"):
        assert same_weights(pairform.load(tmp_path / name), pairform.load(gemma["v1"]))
    assert pairform.carry("lab/gemma@v1")[0].spec == old
    refused(lambda: pairform.load("lab/gemma@v1", revision="main"), "one revision")
    for odd in ("../../x", "", "a b", "-x", 5):
        refused(lambda odd=odd: pairform.load("lab/gemma", revision=odd), "lab/gemma", "a branch, tag or commit")  # type: ignore[misc]
    refused(lambda: pairform.load_spec(old, revision="v1"), "revision", "only a hub id")


def test_a_conversion_records_commits_and_can_be_repeated(gemma: dict[str, Path], hub: Hub, tmp_path: Path) -> None:
    plan = pairform.plan(encoder="lab/gemma@v1", decoder="lab/gemma")
    commits = hub.repositories["lab/gemma"].branches
    assert [source.path for source in plan.sources.values()] == ["lab/gemma"] * 2
    hub.repositories["lab/gemma"].commit("main", {"config.json": b"{}"})  # the plan is of the commit before
    pairform.execute(plan, tmp_path / "pair")
    converted = pairform.load(tmp_path / "pair").spec
    assert converted.encoder is not None
    assert converted.encoder.width == 16
    bases = json.loads((tmp_path / "pair" / "provenance.json").read_text())["bases"]
    assert bases[0] == {"name": "lab/gemma", "revision": commits["release/1"], "model_type": "gemma2", "license": "gemma"}
    assert bases[1]["revision"] != commits["release/1"]


def test_gated(gemma: dict[str, Path], hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repositories["lab/gemma"].gated = True
    monkeypatch.setenv("HF_TOKEN", READER)
    for read in READERS:
        refused(lambda read=read: read("lab/gemma"), "lab/gemma", "gated", f"{hub.url}/lab/gemma", "hf auth login")  # type: ignore[misc]


READERS: list[Callable[[str], object]] = [pairform.load, pairform.load_spec, pairform.inspect, pairform.verify]


def test_missing(gemma: dict[str, Path], hub: Hub) -> None:
    for read in READERS:
        refused(lambda read=read: read("lab/none"), "lab/none", "no such hub repository", "Check the name")  # type: ignore[misc]
        refused(lambda read=read: read("lab/a--b"), "a hub id: owner/name")  # type: ignore[misc]
        refused(lambda read=read: read("lab/gemma@v9"), "lab/gemma", "no revision 'v9'", "branch, tag or commit")  # type: ignore[misc]


def test_the_cache_serves_without_a_connection(gemma: dict[str, Path], hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    expected = pairform.load("lab/gemma@v1")
    pairform.load_spec("lab/gemma")
    closed = {name: getattr(constants, name).replace(hub.url, "http://127.0.0.1:9") for name in ENDPOINTS}
    settings: list[dict[str, object]] = [{"HF_HUB_OFFLINE": True}, closed]
    for setting in settings:
        with monkeypatch.context() as patch:
            for name, value in setting.items():
                patch.setattr(constants, name, value)
            count = len(hub.requests)
            assert same_weights(pairform.load("lab/gemma@v1"), expected)
            assert pairform.load_spec("lab/gemma").last.width == 32
            refused(lambda: pairform.load("lab/other@v2"), "lab/other", "in reach", "'v2'")
            assert len(hub.requests) == count
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refused(lambda: pairform.load("lab/gemma"), "lab/gemma", "only some of the files")


def test_only_the_files_of_the_model_are_downloaded(hub: Hub, tmp_path: Path) -> None:
    folder = gemma2(tmp_path / "gemma", shard="60KB")
    others = ("onnx/model.safetensors", "onnx/config.json", "consolidated.safetensors", "pytorch_model.bin", "run.py", "a.json")
    publish(hub, "lab/gemma", folder, extra=dict.fromkeys(others, b"not asked for"))
    pairform.load_spec("lab/gemma")
    assert not any(path.endswith(".safetensors") for path in hub.requests)
    pairform.load("lab/gemma")
    fetched = {path.partition("/resolve/")[2].partition("/")[2] for path in hub.requests if "/resolve/" in path}
    assert fetched == {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b'{"siblings": 3}', b'{"id": 5}', b"null"])
def test_answers_that_are_not_the_hubs(body: bytes, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(handler: Handler, name: str, rest: list[str]) -> None:
        raise Answer(200, body)

    monkeypatch.setattr(Handler, "api", answer)
    refused(lambda: pairform.load("lab/gemma"), "lab/gemma")


def test_the_servers_text_is_escaped(hub: Hub, pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def batch(handler: Handler, name: str) -> None:
        objects = [
            each | {"error": {"code": 500, "message": "\x1b[31m\u202e" + "x" * 5000}} for each in handler.json()["objects"]
        ]
        raise Answer(200, {"objects": objects})

    monkeypatch.setattr(Handler, "batch", batch)
    message = refused(lambda: pairform.push(pair, "lab/pair"), "lab/pair")
    assert "\x1b" not in message
    assert "\u202e" not in message
    assert len(message) < 1000


def test_the_modules_of_sentence_transformers_are_part_of_a_model(hub: Hub, tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers")
    from tests.interop.test_sentence_transformers import HEADS, embedder

    source = embedder(tmp_path / "source", HEADS[1])
    pairform.export(source, tmp_path / "out", format="sentence-transformers")
    done = pairform.push(tmp_path / "out", "lab/embedder")
    assert "2_Dense/model.safetensors" in done.files
    assert "library_name: sentence-transformers" in hub.repositories["lab/embedder"].main["README.md"].decode()
    assert pairform.load_spec("lab/embedder") == pairform.load_spec(tmp_path / "out")
    assert same_weights(pairform.load("lab/embedder"), pairform.load(tmp_path / "out"))
    fetched = {path.partition("/resolve/")[2].partition("/")[2] for path in hub.requests if "/resolve/" in path}
    assert {path for path in fetched if "/" in path} >= {"1_Pooling/config.json", "2_Dense/model.safetensors"}
    (tmp_path / "out" / "1_Pooling" / "notes").write_text("secret")
    refused(lambda: pairform.push(tmp_path / "out", "lab/embedder"), "1_Pooling")


def test_an_index_names_no_file_elsewhere(hub: Hub, tmp_path: Path) -> None:
    folder = gemma2(tmp_path / "gemma", shard="60KB")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    index["weight_map"] = dict.fromkeys(index["weight_map"], "../../secret.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    publish(hub, "lab/gemma", folder)
    refused(lambda: pairform.load("lab/gemma"), "plain file names beside the index")


def test_save_carries_tokenizer_and_settings(hub: Hub, pair: Path, tmp_path: Path) -> None:
    pairform.push(pair, "lab/pair")
    model = pairform.load("lab/pair")
    sources: dict[str, str | Path] = {"folder": pair, "hub": "lab/pair"}
    for name, source in sources.items():
        pairform.save(model, tmp_path / name, companions=source)
        for file in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
            assert (tmp_path / name / file).read_bytes() == (pair / file).read_bytes()
    assert pairform.verify(tmp_path / "hub").ok
    bases = json.loads((tmp_path / "hub" / "provenance.json").read_text())["bases"]
    assert [base["name"] for base in bases] == ["lab/pair"]
    model.generation = pairform.GenerationSpec(top_k=7)
    pairform.save(model, tmp_path / "changed", companions=pair)
    assert json.loads((tmp_path / "changed" / "generation_config.json").read_text())["top_k"] == 7
    refused(lambda: pairform.save(model, tmp_path / "no", companions=tmp_path / "none"), "no such folder")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "tokenizer.json").symlink_to(Path(os.devnull))
    refused(lambda: pairform.save(model, tmp_path / "no", companions=tmp_path / "linked"), "tokenizer.json")
    assert not (tmp_path / "no").exists()
