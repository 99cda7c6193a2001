"""A target that cannot or may not be written is refused, and a write that fails leaves nothing behind."""

import errno
import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

import pairform
from pairform.assemblies.checkpoints.writing import direct_io as direct
from tests.broken.damage import SINGLE, contents, refused
from tests.checkpoints import gemma2

Write = Callable[..., object]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gemma2(tmp_path_factory.mktemp("source") / "gemma", num_hidden_layers=2)


@pytest.fixture(params=["save", "convert", "execute", "export"])
def write(request: pytest.FixtureRequest, source: Path) -> Write:
    """Each public function that writes a folder, as `write(out, **options)`."""
    if request.param == "save":
        return lambda out, **options: pairform.save(pairform.load(source), out, **options)
    if request.param == "convert":
        return lambda out, **options: pairform.convert(encoder=source, decoder=source, out=out, **options)
    if request.param == "execute":
        return lambda out, **options: pairform.execute(pairform.plan(encoder=source, decoder=source), out, **options)
    return lambda out, **options: pairform.export(source, out, **options)


def refused_without_trace(write: Write, out: Any, parent: Path, *words: str, **options: Any) -> None:
    before = contents(parent)
    refused(lambda: write(out, **options), *words)
    assert contents(parent) == before


def filled(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).write_text("{}")
    return folder


def test_a_folder_that_is_not_empty_stays_unless_overwriting_is_asked_for(write: Write, tmp_path: Path) -> None:
    out = filled(tmp_path / "out", "spec.json")
    refused_without_trace(write, out, tmp_path, str(out), "not empty", "overwrite")
    assert (out / "spec.json").read_text() == "{}"
    write(out, overwrite=True)
    assert pairform.verify(out).ok
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_holds_no_model_is_never_overwritten(write: Write, tmp_path: Path) -> None:
    out = filled(tmp_path / "thesis", "chapter.tex")
    refused_without_trace(write, out, tmp_path, "holds no model", "spec.json", overwrite=True)


def test_a_folder_with_a_configuration_of_something_else_is_never_overwritten(write: Write, tmp_path: Path) -> None:
    out = filled(tmp_path / "settings", "config.json", "vocab.json")
    refused_without_trace(write, out, tmp_path, "holds no model", "weights", overwrite=True)


def test_work_under_the_name_of_a_folder_that_was_moved_aside_stays(write: Write, tmp_path: Path) -> None:
    filled(tmp_path / ".out.replaced", "spec.json", "thesis.tex")
    for overwrite in (False, True):
        refused_without_trace(write, tmp_path / "out", tmp_path, ".out.replaced", "thesis.tex", overwrite=overwrite)


@pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to("elsewhere"), lambda path: path.symlink_to(".")])
def test_a_file_or_link_is_never_replaced(make: Callable[[Path], object], write: Write, tmp_path: Path) -> None:
    make(tmp_path / "out")
    refused_without_trace(write, tmp_path / "out", tmp_path, "a file or a link", overwrite=True)


def test_an_empty_folder_is_filled(write: Write, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write(tmp_path / "out")
    assert pairform.verify(tmp_path / "out").ok


@pytest.mark.parametrize("place", [".", "inside", "inside/deep", ".."])
def test_a_source_is_never_touched(place: str, source: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(source, tmp_path / "around" / "source"))
    (tmp_path / "around" / "config.json").write_text("{}")
    for write in (
        lambda out: pairform.convert(encoder=own, decoder=source, out=out, overwrite=True),
        lambda out: pairform.execute(pairform.plan(encoder=source, decoder=own), out, overwrite=True),
        lambda out: pairform.export(own, out, overwrite=True),
    ):
        refused_without_trace(write, own / place, tmp_path, "source", "one apart from it")


def test_a_link_to_the_source_is_the_source(source: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(source, tmp_path / "source"))
    (tmp_path / "link").symlink_to(own)
    refused(lambda: pairform.convert(encoder=own, decoder=source, out=tmp_path / "link" / "new"), "one apart from it")


UNUSABLE = {
    "too long": "new/" + "x" * 300,
    "too long for its hidden name": "new/" + "x" * 250,
    "NUL": "new/a\0b",
    "in a file": "file/out",
    "deep in a file": "file/deep/out",
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_a_path_that_no_folder_can_have_is_refused(kind: str, write: Write, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused_without_trace(write, tmp_path / UNUSABLE[kind], tmp_path)


def test_the_home_folder_of_nobody_is_refused(write: Write, tmp_path: Path) -> None:
    refused_without_trace(write, "~nobody-of-this-name/out", tmp_path, "no home folder")


@pytest.mark.parametrize("source", ["~nobody-of-this-name/source", "x" * 5000, 5, b"x"])
def test_what_is_no_source_is_refused(source: Any, tmp_path: Path) -> None:
    for sources in ({"encoder": source, "decoder": "missing"}, {"encoder": "missing", "decoder": source}):
        refused_without_trace(
            lambda out, given=sources: pairform.convert(**given, out=out), tmp_path / "out", tmp_path, "folder"
        )


@pytest.mark.parametrize("out", [None, 5, b"out"])
def test_what_is_no_path_is_refused(out: Any, write: Write, tmp_path: Path) -> None:
    refused_without_trace(write, out, tmp_path, "a path that a folder can have")


@pytest.mark.parametrize("size", ["abc", "", "GB", "5 apples", 0, "0GB", -1, "-1GB", 1.5, None, True, "9" * 400 + "GB"])
def test_a_shard_size_that_makes_no_sense_is_refused(size: Any, write: Write, tmp_path: Path) -> None:
    refused_without_trace(write, tmp_path / "new" / "out", tmp_path, "max_shard_size", "5GB", max_shard_size=size)


@pytest.mark.parametrize("format", ["Pairform", "gguf", None])
def test_an_unknown_format_is_refused(format: Any, write: Write, tmp_path: Path) -> None:
    refused_without_trace(write, tmp_path / "new" / "out", tmp_path, "format", "pairform, transformers", format=format)


def test_too_little_space_is_found_before_anything_is_written(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: pytest.fail("a folder was made"))
    refused_without_trace(write, tmp_path / "new" / "out", tmp_path, "1,000 bytes free", "to be written")


def failing(error: int, after: int) -> Callable[..., Any]:
    """A stand-in for a function of `os` that fails at its call number `after`."""
    calls = 0

    def fail_later(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > after:
                raise OSError(error, os.strerror(error))
            return real(*args, **kwargs)

        return call

    return fail_later


@pytest.mark.parametrize("after", [0, 1, 10])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_disk_that_fails_while_it_is_written_leaves_nothing_behind(
    error: int, after: int, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrap = failing(error, after)
    monkeypatch.setattr(os, "write", wrap(os.write))
    monkeypatch.setattr(direct, "BUFFER", direct.BLOCK)
    out = tmp_path / "new" / "out"
    space = [] if error == errno.EIO else ["Free some space"]
    refused_without_trace(write, out, tmp_path, str(out), os.strerror(error), "Nothing was left behind", *space)


def test_a_failed_overwrite_keeps_the_old_model(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = filled(tmp_path / "out", "spec.json")
    with monkeypatch.context() as patched:
        wrap = failing(errno.ENOSPC, 10)
        patched.setattr(os, "write", wrap(os.write))
        patched.setattr(direct, "BUFFER", direct.BLOCK)
        refused_without_trace(write, out, tmp_path, "Nothing was left behind", overwrite=True)
    assert (out / "spec.json").read_text() == "{}"


def test_a_source_that_cannot_be_read_is_named_and_the_target_is_not_blamed(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> NoReturn:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "preadv", broken)
    out = tmp_path / "new" / "out"
    message = refused(
        lambda: pairform.convert(encoder=source, decoder=source, out=out), str(source / SINGLE), "Input/output error"
    )
    assert str(out) not in message
    assert contents(tmp_path) == []


def test_a_source_that_shrinks_meanwhile_is_named(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "preadv", lambda *_, **__: 0)
    refused(lambda: pairform.export(source, tmp_path / "out"), str(source / SINGLE), "its end at byte")
    assert contents(tmp_path) == []


@pytest.mark.parametrize("function", ["open", "write"])
def test_bytes_are_the_same_where_direct_writes_are_refused(
    function: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "BUFFER", 4 * direct.BLOCK)
    pairform.export(source, tmp_path / "direct")
    real = getattr(os, function)

    def refuse(first: Any, second: Any, *rest: Any) -> Any:
        flags = second if function == "open" else fcntl.fcntl(first, fcntl.F_GETFL)
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(first, second, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(os, function, refuse)
        pairform.export(source, tmp_path / "plain")
    assert (tmp_path / "direct" / SINGLE).read_bytes() == (tmp_path / "plain" / SINGLE).read_bytes()


def test_a_parent_that_cannot_be_written_is_reported(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.mkdir

    def mkdir(path: Path, *rest: Any, **options: Any) -> None:
        if ".partial-" in path.name:
            raise PermissionError(errno.EACCES, "Permission denied")
        real(path, *rest, **options)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    out = tmp_path / "new" / "out"
    refused_without_trace(write, out, tmp_path, str(out), "Permission denied")


def test_a_writer_does_not_replace_what_another_wrote_meanwhile(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    plan = pairform.plan(encoder=source, decoder=source)
    written = 0

    def meanwhile(moved: int, whole: int) -> None:
        nonlocal written
        written += moved
        if not out.exists():
            filled(out, "spec.json")

    refused(lambda: pairform.execute(plan, out, progress=meanwhile), "not empty")
    assert written
    assert contents(tmp_path) == ["out", "out/spec.json"]


@pytest.mark.parametrize("name", ["out", "out[1]", "*", "o?t"])
def test_leftovers_of_killed_writers_go_and_those_of_living_ones_and_of_other_targets_stay(
    name: str, write: Write, tmp_path: Path
) -> None:
    import fcntl

    alive, dead = filled(tmp_path / f".{name}.partial-alive"), filled(tmp_path / f".{name}.partial-dead", "x")
    other = filled(tmp_path / ".another.partial-dead")
    lock = os.open(alive, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        write(tmp_path / name)
    finally:
        os.close(lock)
    assert pairform.verify(tmp_path / name).ok
    assert alive.is_dir()
    assert other.is_dir()
    assert not dead.exists()


def test_a_model_that_was_moved_aside_by_a_killed_overwrite_is_not_lost(write: Write, tmp_path: Path) -> None:
    filled(tmp_path / ".out.replaced", "spec.json")
    refused(lambda: write(tmp_path / "out"), "not empty")
    assert contents(tmp_path) == ["out", "out/spec.json"]
    write(tmp_path / "out", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
