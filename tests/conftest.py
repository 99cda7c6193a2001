"""Quiet libraries; one thread a process, since models are tiny and pytest-xdist runs several; the same draws in each run."""

import gc
import logging
import os
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

gc.disable()  # until all is collected: of the imports' objects nearly all stay, and each pass looks through them

for name in ("torchao", "torch.utils._pytree"):  # transformers imports torchao, which warns of kernels for other machines
    logging.getLogger(name).setLevel(logging.ERROR)

import transformers  # noqa: E402

from pairform.assemblies.checkpoints.writing import publishing  # noqa: E402
from tests import made_once  # noqa: E402

# Compiled code is kept between runs, also those of other clones: machine code of one decoding step takes 50 s of CPU time. Each
# instruction set has a folder of its own: with those of another, it does not build.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "pairform-tests"
COMPILED = CACHE / f"inductor-{os.environ.get('ATEN_CPU_CAPABILITY', 'native')}"
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(COMPILED))
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # more are processes that each import torch
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start
torch.set_num_threads(1)
settings.register_profile("steady", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def pytest_collection_finish() -> None:
    """What is imported by now stays: the garbage collector need not look through it again and again."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True, scope="session")
def _checkpoints_are_made_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    made_once.KEPT[:] = [tmp_path_factory.mktemp("made_once")]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_power_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders are written by the thousand here, and each would wait for the disk."""
    monkeypatch.setattr(publishing, "sync", lambda path: None)


@pytest.fixture
def graphs_as_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs are run as they were traced, without machine code, which tests/merged generates."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
