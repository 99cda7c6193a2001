"""What `make demo` makes: once in a run of the tests, by whichever worker asks first."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).parents[1]


def made_demo(factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[str, str]]]:
    """The folder, and what each of the two scripts printed and warned of.

    They run in processes of their own, since libraries warn when they are first imported.
    """
    shared = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder, said = shared / "demo", shared / "demo.json"
    with FileLock(shared / "demo.lock"):
        if not said.exists():
            found = []
            for script in ("checkpoints.py", "convert.py"):
                command = [sys.executable, str(ROOT / "examples" / script), "--out", str(folder)]
                environment = os.environ | {"PYTHONPATH": "."}
                done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True, text=True)
                found.append((done.stdout, done.stderr))
            said.write_text(json.dumps(found))
    return folder, [(out, warned) for out, warned in json.loads(said.read_text())]
