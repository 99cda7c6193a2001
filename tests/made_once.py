"""Checkpoint folders that several tests ask for: made once in a run, then copied."""

import shutil
from collections.abc import Callable
from functools import wraps
from hashlib import sha256
from pathlib import Path
from typing import Concatenate, ParamSpec

import torch

P = ParamSpec("P")
KEPT: list[Path] = []
"""The folder of those that were made; without one every call makes its own."""
STATES: dict[Path, torch.Tensor] = {}
"""torch's random state after a folder was made, which tests go on from."""


def made_once(make: Callable[Concatenate[Path, P], Path]) -> Callable[Concatenate[Path, P], Path]:
    """`make` writes a folder that follows from its other arguments, whose `repr` tells them apart."""

    @wraps(make)
    def made(folder: Path, /, *args: P.args, **options: P.kwargs) -> Path:
        if not KEPT:
            return make(folder, *args, **options)
        asked = repr((make.__module__, make.__qualname__, args, sorted(options.items())))
        kept = KEPT[0] / sha256(asked.encode()).hexdigest()[:24]
        if kept not in STATES:
            make(kept, *args, **options)
            STATES[kept] = torch.get_rng_state()
        torch.set_rng_state(STATES[kept])
        shutil.copytree(kept, folder, dirs_exist_ok=True)
        return folder

    return made
