"""Models are published as one commit, whole or not at all, and load from the hub as they were."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

import pairform
from pairform.assemblies.checkpoints.verify import verify
from tests.broken.damage import edit_json, refused
from tests.checkpoints import gemma2
from tests.hub.repositories import Repository
from tests.hub.server import OWNER, READER, Hub, error
from tests.hub.weights import same_weights


def test_a_pushed_model_loads_as_it_was(hub: Hub, pair: Path) -> None:
    done = pairform.push(pair, "lab/pair", message="First version")
    assert done.url == f"{hub.url}/lab/pair/tree/{done.commit}"
    for ref in ("lab/pair", f"lab/pair@{done.commit}"):
        assert same_weights(pairform.load(ref), pairform.load(pair))
    assert verify("lab/pair").ok
    assert pairform.load_spec("lab/pair") == pairform.load_spec(pair)
    remote = hub.repositories["lab/pair"]
    assert remote.messages == ["initial commit", "First version"], "one commit"
    assert done.files == {name: len(content) for name, content in remote.main.items() if name != ".gitattributes"}
    kept = {path.name for path in pair.iterdir()}
    assert remote.main.keys() == kept | {"README.md", "NOTICE", ".gitattributes"}
    assert {name for name in kept if remote.main[name] != (pair / name).read_bytes()} == {"provenance.json"}


def test_a_folder_in_the_layout_of_transformers(hub: Hub, pair: Path, tmp_path: Path) -> None:
    pairform.export(pair, tmp_path / "export")
    pairform.push(tmp_path / "export", "lab/export")
    assert same_weights(pairform.load("lab/export"), pairform.load(pair))
    assert "library_name: transformers" in hub.repositories["lab/export"].main["README.md"].decode()


def test_nothing_new_makes_no_commit(hub: Hub, pair: Path) -> None:
    first = pairform.push(pair, "lab/pair")
    count = len(hub.uploads)
    assert pairform.push(pair, "lab/pair").commit == first.commit
    assert len(hub.uploads) == count
    assert len(hub.repositories["lab/pair"].files) == 2


def test_an_interrupted_upload_publishes_nothing_and_continues(hub: Hub, pair: Path) -> None:
    shards = len(list(pair.glob("*.safetensors")))
    assert shards > 2
    started: list[str] = []

    def full_after_one(sha: str) -> int | None:
        started.append(sha)
        return None if len(started) == 1 else 507

    hub.on_upload = full_after_one
    refused(lambda: pairform.push(pair, "lab/pair"), "lab/pair", "507")
    assert list(hub.repositories["lab/pair"].main) == [".gitattributes"], "the branch is as it was"
    assert len(hub.uploads) == 1
    hub.on_upload = lambda sha: None
    pairform.push(pair, "lab/pair")
    assert len(hub.uploads) == len(set(hub.uploads)) == shards, "only what was missing is sent again"
    assert same_weights(pairform.load("lab/pair"), pairform.load(pair))


def test_a_dropped_connection_is_tried_again(hub: Hub, pair: Path) -> None:
    drops = [0]
    hub.on_upload = lambda sha: drops.pop() if drops else None
    pairform.push(pair, "lab/pair")
    assert verify("lab/pair").ok


def test_a_killed_process_publishes_nothing(hub: Hub, pair: Path) -> None:
    arrived, released = threading.Event(), threading.Event()

    def hold(sha: str) -> int:
        arrived.set()
        released.wait(60)
        return 0

    hub.on_upload = hold
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_TOKEN": OWNER, "HF_HUB_DISABLE_XET": "1"}
    words = [sys.executable, "-m", "pairform", "push", str(pair), "lab/pair"]
    with subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        assert arrived.wait(120)
        process.send_signal(signal.SIGKILL)
    released.set()
    assert list(hub.repositories["lab/pair"].main) == [".gitattributes"]
    hub.on_upload = lambda sha: None
    pairform.push(pair, "lab/pair")
    assert verify("lab/pair").ok


def test_a_commit_of_someone_else_is_not_overwritten(hub: Hub, pair: Path) -> None:
    def other(repository: Repository) -> None:
        repository.commit("main", repository.main | {"notes.txt": b"theirs"})

    pairform.push(pair, "lab/pair", revision="main")
    changed = hub.repositories["lab/pair"]
    changed.commit("main", {name: content for name, content in changed.main.items() if name != "spec.json"})
    hub.on_commit = other
    refused(lambda: pairform.push(pair, "lab/pair"), "412", "Someone else")
    assert "spec.json" not in changed.main
    assert changed.main["notes.txt"] == b"theirs"


def test_a_branch_is_made_with_its_commit_or_not_at_all(hub: Hub, pair: Path) -> None:
    def broken(repository: Repository) -> None:
        raise error(500)

    hub.on_commit = broken
    refused(lambda: pairform.push(pair, "lab/pair", revision="trial"), "500")
    assert list(hub.repositories["lab/pair"].branches) == ["main"]
    hub.on_commit = lambda repository: repository.commit("trial", {"notes.txt": b"theirs"})
    refused(lambda: pairform.push(pair, "lab/pair", revision="trial"), "412")
    assert hub.repositories["lab/pair"].files[hub.repositories["lab/pair"].branches.pop("trial")] == {"notes.txt": b"theirs"}
    hub.on_commit = lambda repository: None
    assert pairform.push(pair, "lab/pair@trial").revision == "trial"
    assert list(hub.repositories["lab/pair"].main) == [".gitattributes"]
    assert same_weights(pairform.load("lab/pair", revision="trial"), pairform.load(pair))
    hub.repositories["lab/pair"].tags["v1"] = hub.repositories["lab/pair"].branches["trial"]
    refused(lambda: pairform.push(pair, "lab/pair@v1"), "the tag 'v1'")
    assert same_weights(pairform.load("lab/pair@v1"), pairform.load(pair))


def test_visibility(hub: Hub, pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repositories["lab/open"] = Repository()
    refused(lambda: pairform.push(pair, "lab/open", private=True), "a public repository", "/settings")
    assert not hub.uploads
    assert len(hub.repositories["lab/open"].files) == 1
    pairform.push(pair, "lab/hidden", private=True)
    assert hub.repositories["lab/hidden"].private
    pairform.push(pair, "lab/hidden")
    assert hub.repositories["lab/hidden"].private, "as it is"
    refused(lambda: pairform.push(pair, "lab/hidden", private=False), "a private repository")
    monkeypatch.setenv("HF_TOKEN", READER)
    refused(lambda: pairform.load("lab/hidden"), "lab/hidden", "hf auth login")


@pytest.mark.parametrize("token", [READER, None])
def test_who_may_not_write_is_told_to_log_in(token: str | None, hub: Hub, pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repositories["lab/pair"] = Repository()
    monkeypatch.delenv("HF_TOKEN")
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    for name in ("lab/pair", "lab/new"):
        message = refused(lambda name=name: pairform.push(pair, name), name, "token")  # type: ignore[misc]
        assert "hf auth login" in message or "right to write" in message
    assert list(hub.repositories) == ["lab/pair"]
    assert not hub.uploads


def test_a_new_version_replaces_the_files_of_the_old_one(hub: Hub, pair: Path, tmp_path: Path) -> None:
    pairform.push(pair, "lab/pair")
    remote = hub.repositories["lab/pair"]
    remote.commit("main", remote.main | {"README.md": b"# Edited on the hub", "pictures/one.png": b"png"})
    pairform.save(pairform.load(pair), tmp_path / "single", companions=pair)
    done = pairform.push(tmp_path / "single", "lab/pair")
    assert set(done.removed) == {path.name for path in pair.glob("model*") if path.name != "model.safetensors"}
    assert verify("lab/pair").ok
    assert remote.main["README.md"] == b"# Edited on the hub"
    assert "pictures/one.png" in remote.main
    refused(lambda: pairform.push(tmp_path / "single", "lab/pair", license="mit"), "license", "README.md")
    pairform.push(tmp_path / "single", "lab/pair", card="replace", license="gemma")
    assert b"pairform.load" in remote.main["README.md"]


def test_a_gitignore_of_the_repository_leaves_nothing_out(hub: Hub, pair: Path) -> None:
    hub.repositories["lab/pair"] = Repository()
    hub.repositories["lab/pair"].commit("main", {".gitignore": b"*.safetensors\n*.json\n"})
    pairform.push(pair, "lab/pair")
    assert verify("lab/pair").ok


@pytest.mark.parametrize(
    "name", [".env", "runs/log", ".git/config", "pytorch_model.bin", "encoder_tokenizer/notes", "README.md/a"]
)
def test_other_files_are_not_sent(name: str, hub: Hub, pair: Path, tmp_path: Path) -> None:
    folder = copytree(pair, tmp_path / "pair")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("secret")
    refused(lambda: pairform.push(folder, "lab/pair"), name.removesuffix("/log").removesuffix("/config").removesuffix("/a"))
    assert not hub.requests


@pytest.mark.parametrize("name", ["tokenizer.json", "README.md", "LICENSE", "model-00001-of-00003.safetensors"])
def test_links_out_of_the_folder_are_not_followed(name: str, hub: Hub, pair: Path, tmp_path: Path) -> None:
    folder = copytree(pair, tmp_path / "pair")
    (folder / name).unlink(missing_ok=True)
    outside = tmp_path / "outside"
    outside.write_bytes((pair / name).read_bytes() if (pair / name).exists() else b"secret")
    (folder / name).symlink_to(outside)
    refused(lambda: pairform.push(folder, "lab/pair"), name, "a link to")
    assert not hub.requests


def test_a_folder_that_is_not_as_it_was_written_is_not_sent(hub: Hub, pair: Path, tmp_path: Path) -> None:
    folder = copytree(pair, tmp_path / "pair")
    (folder / "tokenizer.json").write_text("{}")
    refused(lambda: pairform.push(folder, "lab/pair"), "tokenizer.json", "pairform export")
    refused(lambda: pairform.push(tmp_path / "missing", "lab/pair"), "no such folder")
    refused(lambda: pairform.push(gemma2(tmp_path / "plain") / "config.json", "lab/pair"), "no such folder")
    (folder / "spec.json").unlink()
    (folder / "config.json").unlink()
    refused(lambda: pairform.push(folder, "lab/pair"), "config.json")
    assert not hub.requests


def test_a_tokenizer_that_was_added_is_recorded(hub: Hub, pair: Path, tmp_path: Path) -> None:
    pairform.save(pairform.load(pair), tmp_path / "bare")
    (tmp_path / "bare" / "tokenizer.json").write_bytes((pair / "tokenizer.json").read_bytes())
    pairform.push(tmp_path / "bare", "lab/bare")
    assert "tokenizer.json" in hub.repositories["lab/bare"].main
    assert verify("lab/bare").ok


def test_places_on_this_machine_are_not_published(hub: Hub, tmp_path: Path) -> None:
    home = tmp_path / "private-home"
    home.mkdir()
    sources = [gemma2(home / name, seed=seed) for seed, name in enumerate(("large", "small"))]
    pairform.convert(encoder=sources[0], decoder=sources[1], out=home / "pair")
    assert "private-home" in (home / "pair" / "provenance.json").read_text()
    pairform.extract(home / "pair", home / "encoder", part="encoder")
    for name in ("pair", "encoder"):
        pairform.push(home / name, f"lab/{name}")
        assert not any(b"private-home" in content for content in hub.repositories[f"lab/{name}"].main.values())
    provenance = json.loads(hub.repositories["lab/pair"].main["provenance.json"])
    assert provenance["sources"]["encoder"]["path"] == "large"


def test_paths_that_transformers_recorded_are_not_published(hub: Hub, pair: Path, tmp_path: Path) -> None:
    source = copytree(pair, tmp_path / "pair")
    edit_json(source / "tokenizer_config.json", lambda fields: fields.update(name_or_path="/home/me/x", sep_token="/s/"))
    (source / "provenance.json").unlink()
    pairform.export(source, tmp_path / "again", format="pairform")
    pairform.push(tmp_path / "again", "lab/pair")
    fields = json.loads(hub.repositories["lab/pair"].main["tokenizer_config.json"])
    assert (fields["name_or_path"], fields["sep_token"]) == ("x", "/s/")
    assert verify("lab/pair").ok


def test_a_hub_that_insists_on_its_gitignore(hub: Hub, pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repositories["lab/pair"] = Repository()
    monkeypatch.setattr("tests.hub.server.ignored", lambda path, gitignore: path == "spec.json")
    refused(lambda: pairform.push(pair, "lab/pair"), ".gitignore", "spec.json")
    assert list(hub.repositories["lab/pair"].main) == [".gitattributes"]


def test_a_dry_run_asks_nobody(hub: Hub, pair: Path) -> None:
    done = pairform.push(pair, "lab/pair", dry_run=True)
    assert done.commit is None
    assert {"README.md", "spec.json", "tokenizer.json", "NOTICE"} <= done.files.keys()
    assert not hub.requests


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"repo": "pair"}, "hub id"),
        ({"repo": "a/b/c"}, "hub id"),
        ({"revision": "other"}, "one revision"),
        ({"private": "yes"}, "true, false or nothing"),
        ({"card": "drop"}, "keep or replace"),
        ({"message": " "}, "a commit message"),
        ({"license": "MIT\nbase_model: x"}, "the hub's name of a licence"),
    ],
)
def test_arguments_are_checked_before_anything_is_sent(arguments: dict[str, Any], said: str, hub: Hub, pair: Path) -> None:
    given: dict[str, Any] = {"repo": "lab/pair@trial"} | arguments
    refused(lambda: pairform.push(pair, **given), said)
    assert not hub.requests
