"""A run resumed from its checkpoint goes on as if nothing had happened, on the same and on another number of processes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn

import pairform
from pairform.assemblies.modeling.processes import PeerError
from pairform.training.checkpoints import load_checkpoint, resume_step, save_checkpoint
from pairform.training.parallel import World
from tests.parallel.pairs import ROWS, batch, count, full, part
from tests.parallel.processes import run_checks
from tests.small_pairs import small_pair

KINDS = {"t5gemma": small_pair, "t5gemma2": lambda: small_pair("t5gemma2-270m-270m")}
STEPS = 3
"""Before the checkpoint, and again after it."""


def new_run(world: World, kind: str) -> tuple[pairform.Model, torch.optim.Optimizer]:
    model = pairform.shard(pairform.build(KINDS[kind](), seed=0).train(), world.mesh)
    model.get_parameter("decoder.norm.weight").requires_grad_(False)  # no gradient, no state
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return model, torch.optim.AdamW(trained, lr=1e-2)


def train(world: World, kind: str, model: pairform.Model, optimizer: torch.optim.Optimizer, steps: range) -> list[float]:
    """The loss of each step over all processes."""
    whole, losses = batch(kind), []
    rows = slice(world.rank * ROWS // world.size, (world.rank + 1) * ROWS // world.size)
    for step in steps:
        optimizer.param_groups[0]["lr"] = 1e-2 / (1 + step)
        loss = model(**part(whole, rows), loss_tokens=count(whole)).loss
        assert loss is not None
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(world.sum(loss.detach())))
    return losses


def average(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach() * 0.5 for name, parameter in model.named_parameters()}


def write_run(world: World, kind: str, folder: Path) -> list[float]:
    """The losses after the checkpoint, in a run that is not interrupted."""
    model, optimizer = new_run(world, kind)
    train(world, kind, model, optimizer, range(STEPS))
    state = {"average": average(model), "tokens": 12, "spikes": [0.5, None], "seen": torch.arange(3)}
    save_checkpoint(folder / kind, STEPS, model, optimizer, state)
    return train(world, kind, model, optimizer, range(STEPS, 2 * STEPS))


def resume(world: World, kind: str, folder: Path) -> list[float]:
    torch.manual_seed(7)
    model, optimizer = new_run(world, kind)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
    step = resume_step(folder / kind)
    assert step == STEPS
    state = load_checkpoint(folder / kind, step, model, optimizer)
    assert (state["tokens"], state["spikes"]) == (12, [0.5, None])
    assert state["seen"].tolist() == [0, 1, 2]
    for name, expected in average(model).items():
        assert type(state["average"][name]) is type(expected), name
        assert torch.equal(full(state["average"][name]), full(expected)), name
    return train(world, kind, model, optimizer, range(step, 2 * step))


def check_two_processes_resume_bit_by_bit(world: World, folder: Path) -> None:
    for kind in KINDS:
        expected = write_run(world, kind, folder)
        assert resume(world, kind, folder) == expected
        if world.first:
            (folder / f"{kind}.losses").write_text(json.dumps(expected))


def check_two_processes_resume_what_one_wrote(world: World, folder: Path) -> None:
    for kind in KINDS:
        expected = json.loads((folder / f"{kind}.losses").read_text())
        assert resume(world, kind, folder) == pytest.approx(expected, rel=1e-6)


def check_an_error_of_one_process_leaves_no_checkpoint(world: World, folder: Path) -> None:
    model, optimizer = new_run(world, "t5gemma")
    state: dict[str, Any] = {"loss": object() if world.rank == 1 else 1.0}
    with pytest.raises(PeerError if world.first else pairform.PairformError) as caught:
        save_checkpoint(folder, 1, model, optimizer, state)
    assert ("object" in str(caught.value)) == (not world.first)
    (folder / ".step-2.partial").mkdir(exist_ok=True)
    world.barrier()
    assert resume_step(folder) is None
    assert list(folder.iterdir()) == []


def check_a_damaged_file_is_an_error_in_all(world: World, folder: Path) -> None:
    model, optimizer = new_run(world, "t5gemma")
    save_checkpoint(folder, 1, model, optimizer, {})
    if world.first:
        with (folder / "step-1" / "__1_0.distcp").open("r+b") as file:
            file.write(b"\0" * 10000)
    world.barrier()
    with pytest.raises(pairform.PairformError) as caught:
        load_checkpoint(folder, 1, model, optimizer)
    assert isinstance(caught.value, PeerError) == world.first, "process 1 reads that file"


ONE = World(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    if not distributed.is_available():
        pytest.skip("torch without torch.distributed")
    folder = tmp_path_factory.mktemp("two")
    written = folder / "check_two_processes_resume_what_one_wrote"
    written.mkdir()
    for kind in KINDS:
        (written / f"{kind}.losses").write_text(json.dumps(write_run(ONE, kind, written)))
    return {"failed": run_checks(__name__, folder), "folder": folder}


CHECKS = [name for name in dir() if name.startswith("check_")]


@pytest.mark.parametrize("check", CHECKS)
def test_in_two_processes(check: str, outcomes: Mapping[str, Any]) -> None:
    failed = {name: text for name, text in outcomes["failed"].items() if name.startswith((f"{check} ", "process"))}
    assert not failed, "\n".join(f"{name}: {text}" for name, text in failed.items())


@pytest.mark.parametrize("kind", KINDS)
def test_one_process_resumes_what_two_wrote(kind: str, outcomes: Mapping[str, Any]) -> None:
    written = outcomes["folder"] / "check_two_processes_resume_bit_by_bit"
    expected = json.loads((written / f"{kind}.losses").read_text())
    assert resume(ONE, kind, written) == pytest.approx(expected, rel=1e-6)
