"""One input by its number, tried in a folder of its own."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random

from tests.fuzz.inputs import KINDS
from tests.fuzz.limits import fault


def faults(kind: str, seed: int, number: int) -> Iterator[str]:
    """What is wrong with how pairform answers this input: one line, or none."""
    random = Random(f"{seed} {kind} {number}")
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            what, call = KINDS[kind](random, Path(folder))
            found = fault(call)
        finally:
            os.chdir(here)
    if found is not None:
        yield f"{kind} {number} of seed {seed} ({what}): {found}"
