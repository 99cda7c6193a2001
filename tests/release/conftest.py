"""One build for all tests of a run."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

from tests.release.distributions import build, clean_copy


@dataclass(frozen=True)
class Built:
    """A clean copy of the repository, and what was built from it."""

    tree: Path
    sdist: Path
    wheel: Path


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    tree, dist = shared / "release" / "tree", shared / "release" / "dist"
    with FileLock(shared / "release.lock"):
        if not dist.exists():
            build(clean_copy(tree), dist)
    [wheel] = dist.glob("*.whl")
    [sdist] = dist.glob("*.tar.gz")
    return Built(tree, sdist, wheel)
