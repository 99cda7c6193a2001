"""A source from a stranger: what it may bring along, and what happens when it changes while it is read."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

import pairform
from pairform.assemblies.checkpoints.writing import publishing
from tests.broken.damage import SINGLE, contents, edit_json, refused
from tests.checkpoints import gemma2

SECRET = "secret"
FORMATS: tuple[Literal["transformers", "pairform"], ...] = ("transformers", "pairform")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gemma2(tmp_path_factory.mktemp("source") / "gemma")


@pytest.fixture
def model(source: Path, tmp_path: Path) -> Path:
    """A copy of the source with a tokenizer, beside a file that is none of its own."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "tokenizer.json").write_text(SECRET)
    copy = Path(shutil.copytree(source, tmp_path / "model"))
    (copy / "tokenizer.json").write_text("{}")
    return copy


def to_file(model: Path) -> None:
    (model / "chat_template.jinja").symlink_to("../home/tokenizer.json")


def to_folder(model: Path) -> None:
    (model / "encoder_tokenizer").symlink_to("../home")


def through_folder(model: Path) -> None:
    (model / "inner").symlink_to("../home")
    (model / "added_tokens.json").symlink_to("inner/tokenizer.json")


def to_nothing(model: Path) -> None:
    (model / "tokenizer.model").symlink_to("nowhere")


def in_a_circle(model: Path) -> None:
    (model / "tokenizer.model").symlink_to("tokenizer.model")


def pipe(model: Path) -> None:
    os.mkfifo(model / "special_tokens_map.json")


def huge(model: Path) -> None:
    with (model / "tokenizer.model").open("wb") as file:
        file.truncate(1 << 40)


def linked_blobs(model: Path) -> None:
    """As in the hub's cache, but with the folder of blobs a link to another one."""
    (model.parent / "blobs").symlink_to("home")
    (model.parent / "snapshots").mkdir()
    (model / "chat_template.jinja").symlink_to("../../blobs/tokenizer.json")
    shutil.move(model, model.parent / "snapshots" / "model")


@pytest.mark.parametrize(
    "prepare",
    [to_file, to_folder, through_folder, to_nothing, in_a_circle, pipe, huge, linked_blobs],
    ids=lambda each: each.__name__,
)
def test_companions_are_regular_files_inside_the_source(prepare: Callable[[Path], None], model: Path, tmp_path: Path) -> None:
    prepare(model)
    model = model if model.exists() else tmp_path / "snapshots" / "model"
    for write in (
        lambda: pairform.export(model, tmp_path / "out", format="pairform"),
        lambda: pairform.carry(model, out=tmp_path / "out"),
    ):
        refused(write, str(model), "found")
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("role", ["encoder", "decoder"])
def test_a_companion_of_either_source_is_refused_by_convert(role: str, model: Path, source: Path, tmp_path: Path) -> None:
    (model / "tokenizer.json").unlink()
    (model / "tokenizer.json").symlink_to("../home/tokenizer.json")
    sources = {"encoder": source, "decoder": source} | {role: model}
    encoder, decoder = sources["encoder"], sources["decoder"]
    refused(
        lambda: pairform.convert(encoder=encoder, decoder=decoder, out=tmp_path / "out"),
        str(model / "tokenizer.json"),
        "a link to",
    )
    assert not (tmp_path / "out").exists()


def test_a_snapshot_of_the_hub_cache_links_to_its_own_blobs(model: Path, tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "repo" / "snapshots" / "abc", tmp_path / "repo" / "blobs"
    blobs.mkdir(parents=True)
    shutil.copytree(model, snapshot)
    shutil.move(snapshot / "tokenizer.json", blobs / "0123")
    (snapshot / "tokenizer.json").symlink_to("../../blobs/0123")
    pairform.export(snapshot, tmp_path / "out", format="pairform")
    assert (tmp_path / "out" / "tokenizer.json").read_text() == "{}"
    assert not (tmp_path / "out" / "tokenizer.json").is_symlink()


def test_only_known_files_of_the_encoders_tokenizer_come_along(model: Path, tmp_path: Path) -> None:
    own = model / "encoder_tokenizer"
    (own / "inner").mkdir(parents=True)
    for name in ("tokenizer.json", "setup.py", "inner/tokenizer.json"):
        (own / name).write_text("[]")
    pairform.export(model, tmp_path / "out", format="pairform")
    assert contents(tmp_path / "out" / "encoder_tokenizer") == ["tokenizer.json"]


@pytest.mark.parametrize("change", ["replaced", "rewritten"])
def test_a_source_that_changes_while_it_is_read_is_an_error(change: str, model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    shutil.copy(model / SINGLE, other)
    changes = iter([lambda: other.replace(model / SINGLE) if change == "replaced" else os.utime(model / SINGLE, ns=(1, 1))])

    def change_once(moved: int, whole: int) -> None:
        for each in changes:
            each()  # type: ignore[no-untyped-call]

    refused(
        lambda: pairform.export(model, tmp_path / "out", format="pairform", progress=change_once), SINGLE, "while it was read"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", [".git", "train.py", "encoder_tokenizer/notes.txt", "spec.json.orig", "vocab.json"])
def test_only_a_model_and_nothing_else_is_overwritten(name: str, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pairform.export(source, out, format="pairform")
    (out / name).parent.mkdir(exist_ok=True)
    if name in (".git", "vocab.json"):  # a folder under a model's file's name is no file of a model
        (out / name).mkdir()
    else:
        (out / name).write_text("work")
    before = contents(tmp_path)
    refused(lambda: pairform.export(source, out, format="pairform", overwrite=True), name, "nothing else")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("system", ["exchanges", "renames"])
def test_overwriting_leaves_the_new_model_alone(
    system: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if system == "renames":
        monkeypatch.setattr(publishing, "exchange", lambda *_: False)
    for format_ in FORMATS:
        pairform.export(source, tmp_path / "out", format=format_, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert pairform.verify(tmp_path / "out").ok
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == "pairform"


def test_a_file_that_appears_at_the_last_moment_is_kept(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    pairform.export(source, out)
    exchange = publishing.exchange

    def late(one: Path, other: Path) -> bool:
        (other / "notes.txt").touch()
        return exchange(one, other)

    monkeypatch.setattr(publishing, "exchange", late)
    refused(lambda: pairform.export(source, out, overwrite=True), "notes.txt")
    assert (out / "notes.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("name", ["tokenizer.json", "spec.json", "chat_template.jinja"])
def test_verify_covers_the_files_beside_the_weights(name: str, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pairform.export(model, out, format="pairform")
    assert pairform.verify(out).ok
    file = out / name
    file.write_text((file.read_text() if file.exists() else "") + "\n")
    (only,) = pairform.verify(out).problems
    assert name in str(only)
    assert "provenance.json" in str(only)


def test_verify_compares_shapes_and_reads_records_without_them(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pairform.export(source, out, format="pairform")
    recorded = json.loads((out / "provenance.json").read_text())
    edit_json(out / "provenance.json", lambda record: record["shapes"].update({"decoder.norm.weight": [4, 8]}))
    (only,) = pairform.verify(out).problems
    assert "the shape" in str(only)
    old = {field: value for field, value in recorded.items() if field not in ("dtypes", "shapes", "files")}
    (out / "provenance.json").write_text(json.dumps(old))
    assert pairform.verify(out).ok


def test_digests_are_those_of_sha256sum(source: Path, tmp_path: Path) -> None:

    pairform.export(source, tmp_path / "out", format="pairform")
    found = pairform.verify(tmp_path / "out", digest="sha256").digests
    assert found == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / "out").iterdir()}
    refused(lambda: pairform.verify(tmp_path / "out", digest="md5"), "digest", "sha256")
