"""A run's checkpoints in one process: what counts as whole, what a kill leaves, and folders of strangers."""

import io
import json
import os
import pickle
import resource
import shutil
import signal
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.metadata import BytesStorageMetadata

from pairform.registry import locked
from pairform.training.checkpoints import latest, load_checkpoint, load_weights, prune, resume_step, save_checkpoint
from pairform.training.checkpoints.metadata import read_metadata
from tests.broken.damage import refused
from tests.forked import ended, fork


def small_run(width: int = 4, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, list[torch.optim.Optimizer]]:
    """Matrices for one optimiser, vectors for the other; all of them have taken a step."""
    torch.manual_seed(width)
    model = nn.Sequential(nn.Linear(3, width), nn.Linear(width, 2)).to(dtype)
    matrices = [parameter for parameter in model.parameters() if parameter.ndim == 2]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim == 1]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.SGD(matrices, 0.1, momentum=0.9), torch.optim.AdamW(vectors, 0.1)]
    train(model, optimizers)
    return model, optimizers


def train(model: nn.Module, optimizers: list[torch.optim.Optimizer]) -> Tensor:
    loss: Tensor = model(torch.ones(1, 3, dtype=next(model.parameters()).dtype)).square().sum()
    for optimizer in optimizers:
        optimizer.zero_grad()
    torch.autograd.backward(loss)
    for optimizer in optimizers:
        optimizer.step()
    return loss.detach()


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, nn.Module, list[torch.optim.Optimizer]]:
    model, optimizers = small_run()
    save_checkpoint(tmp_path, 3, model, optimizers, {"loss": 0.25, "ratio": torch.tensor(2.0)})
    return tmp_path, model, optimizers


def test_a_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    model, optimizers = small_run()
    optimizers[1].param_groups[0]["lr"] = 0.03
    save_checkpoint(tmp_path, 1, model, optimizers, {})
    expected = [train(model, optimizers) for _ in range(3)]
    other, others = small_run()
    train(other, others)
    assert load_checkpoint(tmp_path, 1, other, others) == {}
    assert others[1].param_groups[0]["betas"] == (0.9, 0.999)
    assert [train(other, others) for _ in range(3)] == expected


def test_weights_are_read_alone(tmp_path: Path) -> None:
    model, optimizers = small_run()
    averages = {name: parameter.detach() / 2 for name, parameter in model.named_parameters()}
    save_checkpoint(tmp_path, 1, model, optimizers, {"average": averages})
    other, _ = small_run()
    train(other, optimizers)
    load_weights(tmp_path, 1, other)
    assert all(torch.equal(one, two) for one, two in zip(other.parameters(), model.parameters(), strict=True))
    load_weights(tmp_path, 1, other, "state.average")
    assert all(torch.equal(parameter, averages[name]) for name, parameter in other.named_parameters())
    refused(lambda: load_weights(tmp_path, 1, other, "state.none"), "no such tensor")
    refused(lambda: load_weights(tmp_path, 1, nn.Linear(3, 4)), "no such tensor")


def test_a_parameter_without_a_step_has_no_state(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    save_checkpoint(tmp_path, 1, model, optimizer, {})
    load_checkpoint(tmp_path, 1, model, optimizer)
    assert [*optimizer.state] == [model.weight]


def test_only_whole_checkpoints_count(run: Any) -> None:
    folder, *_ = run
    for name in (".step-9.partial", ".step-2.removed", "step-07", "step-", "step-x"):
        (folder / name).mkdir()
    (folder / "step-12").symlink_to(folder / "step-3")
    (folder / "step-11").write_text("a file")
    assert latest(folder) == 3
    assert latest(folder / "none") is None
    with locked(folder / ".step-9.partial"):
        assert resume_step(folder) == 3
        assert (folder / ".step-9.partial").exists(), "a running process writes it"
    assert not (folder / ".step-2.removed").exists()
    assert resume_step(folder) == 3
    assert not (folder / ".step-9.partial").exists()


def test_the_newest_and_every_so_many_are_kept(run: Any) -> None:
    folder, model, optimizers = run
    for step in (4, 5, 6, 7):
        save_checkpoint(folder, step, model, optimizers, {})
    prune(folder, last=None)
    assert len([*folder.iterdir()]) == 5
    prune(folder, last=2, every=4)
    assert sorted(path.name for path in folder.iterdir()) == ["step-4", "step-6", "step-7"]


def test_a_step_is_saved_again(run: Any) -> None:
    folder, model, optimizers = run
    train(model, optimizers)
    save_checkpoint(folder, 3, model, optimizers, {"again": True})
    assert load_checkpoint(folder, 3, *small_run()) == {"again": True}
    assert [path.name for path in folder.iterdir()] == ["step-3"]


def test_no_file_names_a_path_of_this_machine(run: Any) -> None:
    folder, *_ = run
    assert all(str(folder).encode() not in path.read_bytes() for path in (folder / "step-3").iterdir())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1: 2}, {"$tensor": "x"}, b"bytes"])
def test_state_that_is_no_json_is_rejected(value: Any, tmp_path: Path) -> None:
    refused(lambda: save_checkpoint(tmp_path / "new", 1, *small_run(), {"value": value}), "state.value")
    assert not (tmp_path / "new").exists()


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 10

    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage)
    refused(lambda: save_checkpoint(tmp_path, 1, *small_run(), {}), "10 bytes free")
    assert [*tmp_path.iterdir()] == []


def test_a_disk_that_fills_up_leaves_the_checkpoint_before(run: Any) -> None:
    folder, model, optimizers = run
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, before[1]))
    try:
        refused(lambda: save_checkpoint(folder, 4, model, optimizers, {}), ".step-4.partial", "a folder that can be written")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in folder.iterdir()] == ["step-3"]
    assert load_checkpoint(folder, 3, *small_run())["loss"] == 0.25


def rewrite_state(folder: Path, **fields: Any) -> None:
    path = folder / "step-3" / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def truncate(folder: Path) -> None:
    path = folder / "step-3" / "__0_0.distcp"
    path.write_bytes(path.read_bytes()[:-7])


def replace_by_link(folder: Path) -> None:
    path = folder / "step-3" / "__0_0.distcp"
    path.rename(folder / "elsewhere")
    path.symlink_to(folder / "elsewhere")


def flip(folder: Path) -> None:
    path = folder / "step-3" / ".metadata"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def change_a_weight(folder: Path) -> None:
    path = folder / "step-3" / "__0_0.distcp"
    weight = small_run()[0].state_dict()["0.weight"].numpy().tobytes()
    content = path.read_bytes()
    assert content.count(weight) == 1
    path.write_bytes(content.replace(weight, weight[:-1] + bytes([weight[-1] ^ 1])))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (truncate, "__0_0.distcp"),
    "a changed weight": (change_a_weight, "bytes of a tensor of [4, 3] that have changed"),
    "missing": (lambda folder: (folder / "step-3" / "__0_0.distcp").unlink(), "__0_0.distcp"),
    "a link": (replace_by_link, "not a regular one"),
    "a flipped bit": (flip, ".metadata"),
    "no metadata": (lambda folder: (folder / "step-3" / ".metadata").unlink(), ".metadata"),
    "no state": (lambda folder: (folder / "step-3" / "state.json").unlink(), "state.json"),
    "of another step": (lambda folder: rewrite_state(folder, step=4), "step 3"),
    "files elsewhere": (lambda folder: rewrite_state(folder, files={"../elsewhere": 1}), "elsewhere"),
    "no groups": (lambda folder: rewrite_state(folder, groups=3), "state.json"),
    "other groups": (lambda folder: rewrite_state(folder, groups=[[{"params": ["0.weight"]}], []]), "parameter groups"),
    "no such tensor": (lambda folder: rewrite_state(folder, state={"x": {"$tensor": "nothing"}}), "nothing"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint_is_refused(kind: str, run: Any) -> None:
    folder, *_ = run
    damage, word = DAMAGE[kind]
    damage(folder)
    refused(lambda: load_checkpoint(folder, 3, *small_run()), word)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (lambda: small_run(5), ("0.weight", "[4, 3]", "[5, 3]")),
        (lambda: small_run(dtype=torch.float64), ("float32", "float64")),
        (lambda: (small_run()[0], []), ("parameter groups",)),
        (lambda: (nn.Linear(3, 4), []), ("no such tensor",)),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(other: Any, words: tuple[str, ...], run: Any) -> None:
    folder, *_ = run
    refused(lambda: load_checkpoint(folder, 3, *other()), *words)


class Runs:
    """A pickle that runs a command."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


def test_metadata_that_would_run_code_is_refused(run: Any) -> None:
    folder, *_ = run
    replace_metadata(folder, Runs(folder / "ran"))
    refused(lambda: load_checkpoint(folder, 3, *small_run()), "posix.system")
    rewrite(folder, lambda metadata: setattr(metadata, "planner_data", Runs(folder / "ran")))
    refused(lambda: load_checkpoint(folder, 3, *small_run()), "posix.system")
    assert not (folder / "ran").exists()


def rewrite(folder: Path, change: Callable[[Any], object]) -> None:
    save_checkpoint(folder, 3, *small_run(), {"ratio": torch.tensor(2.0)})
    metadata = read_metadata(folder / "step-3")
    change(metadata)
    replace_metadata(folder, metadata)


def replace_metadata(folder: Path, metadata: object) -> None:
    content = pickle.dumps(metadata)
    (folder / "step-3" / ".metadata").write_bytes(content)
    files = json.loads((folder / "step-3" / "state.json").read_text())["files"]
    rewrite_state(folder, files=files | {".metadata": len(content)})


def all_places(name: str, value: Any) -> Callable[[Any], object]:
    def change(metadata: Any) -> None:
        for place in metadata.storage_data.values():
            setattr(place, name, value)

    return change


def bytes_for_a_tensor(metadata: Any) -> None:
    metadata.state_dict_metadata["state.ratio"] = BytesStorageMetadata()


def huge(metadata: Any) -> None:
    metadata.state_dict_metadata["state.ratio"].size = torch.Size([1 << 40])


def hole(metadata: Any) -> None:
    metadata.state_dict_metadata["model.0.weight"].chunks[0].sizes = torch.Size([2, 3])


HOSTILE: dict[str, Callable[[Any], object]] = {
    "a file elsewhere": all_places("relative_path", "../secret"),
    "an absolute path": all_places("relative_path", "/etc/hostname"),
    "the folder itself": all_places("relative_path", "."),
    "no string": all_places("relative_path", 3),
    "before the beginning": all_places("offset", -4),
    "after the end": all_places("length", 1 << 40),
    "a transformation": all_places("transform_descriptors", ["zstd"]),
    "a pickle for a tensor": bytes_for_a_tensor,
    "a tensor larger than the files": huge,
    "a hole in a tensor": hole,
    "no tensors": lambda metadata: setattr(metadata, "state_dict_metadata", [1]),
    "no places": lambda metadata: setattr(metadata, "storage_data", None),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_metadata_is_refused(kind: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret" * 1000)
    rewrite(tmp_path, HOSTILE[kind])
    refused(lambda: load_checkpoint(tmp_path, 3, *small_run()), ".metadata")


def replace_record(folder: Path, write: Callable[[zipfile.ZipFile], object]) -> None:
    """Let the plan name another archive for the tensor `state.ratio`, at the end of the file."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        write(file)

    def change(metadata: Any) -> None:
        (place,) = (place for index, place in metadata.storage_data.items() if index.fqn == "state.ratio")
        path = folder / "step-3" / place.relative_path
        place.offset, place.length = path.stat().st_size, len(archive.getvalue())
        path.write_bytes(path.read_bytes() + archive.getvalue())
        files = json.loads((folder / "step-3" / "state.json").read_text())["files"]
        rewrite_state(folder, files=files | {path.name: path.stat().st_size})

    rewrite(folder, change)


def long_directory(file: zipfile.ZipFile) -> None:
    for number in range(600):
        file.writestr(f"{number:0200}", b"")


RECORDS: dict[str, tuple[Callable[[zipfile.ZipFile], object], str]] = {
    "compressed": (lambda file: file.writestr("a/data/0", bytes(4), zipfile.ZIP_DEFLATED), "uncompressed"),
    "compressed and huge": (lambda file: file.writestr("a/data/0", bytes(1 << 24), zipfile.ZIP_DEFLATED), "uncompressed"),
    "longer": (lambda file: file.writestr("a/data/0", bytes(8)), "4 uncompressed bytes"),
    "nothing": (lambda file: file.writestr("a/data.pkl", b""), "no archive of one tensor"),
    "a long directory": (long_directory, "a directory of"),
}


@pytest.mark.parametrize("kind", RECORDS)
def test_a_hostile_record_is_refused(kind: str, tmp_path: Path) -> None:
    write, word = RECORDS[kind]
    replace_record(tmp_path, write)
    refused(lambda: load_checkpoint(tmp_path, 3, *small_run()), word)


def test_no_pickle_of_a_record_is_run(tmp_path: Path) -> None:
    def write(file: zipfile.ZipFile) -> None:
        file.writestr("a/data.pkl", pickle.dumps(Runs(tmp_path / "ran")))
        file.writestr("a/data/0", torch.tensor(3.0).numpy().tobytes())

    replace_record(tmp_path, write)
    assert load_checkpoint(tmp_path, 3, *small_run())["ratio"] == 3
    assert not (tmp_path / "ran").exists()


EVENTS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir")
ENDED = 7


def killed_after(count: int, folder: Path, model: nn.Module, optimizers: list[torch.optim.Optimizer]) -> bool:
    """Save step 2 and prune in a child process, which is killed at its `count`-th change of the folder. Whether it was."""
    child = os.fork()
    if child == 0:
        left = count

        def watch(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal left
            if event in EVENTS and "step-" in str(arguments[0]):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        save_checkpoint(folder, 2, model, optimizers, {"step": 2})
        prune(folder, last=1)
        os._exit(ENDED)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == ENDED
    return os.WIFSIGNALED(status)


def kill_at_every_change(folder: Path) -> None:
    """In a process of its own without other threads."""
    model, optimizers = small_run()
    outcomes: list[int] = []
    for count in range(1, 200):
        runs = folder / f"{count}"
        save_checkpoint(runs, 1, model, optimizers, {"step": 1})
        killed = killed_after(count, runs, model, optimizers)
        step = resume_step(runs)
        assert step is not None
        assert load_checkpoint(runs, step, *small_run()) == {"step": step}
        assert all(path.name in ("step-1", "step-2") for path in runs.iterdir())
        if not killed:
            break
        outcomes.append(step)
    (folder / "outcomes").write_text(json.dumps(outcomes))


def test_a_kill_at_any_moment_leaves_whole_checkpoints(tmp_path: Path) -> None:
    assert ended(fork(kill_at_every_change, tmp_path)) == 0
    outcomes = json.loads((tmp_path / "outcomes").read_text())
    assert outcomes == sorted(outcomes)
    assert set(outcomes) == {1, 2}
    assert len(outcomes) > 8
