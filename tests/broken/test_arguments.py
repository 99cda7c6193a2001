"""Arguments of a type that means nothing are refused by the argument's name, and nothing is written."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pairform
from tests.broken.damage import contents, refused
from tests.checkpoints import gemma2

ODD: dict[str, Any] = {
    "a float": 1.5,
    "bytes": b"x",
    "a list": [],
    "a dict": {"a": 1},
    "an object": object(),
    "a tensor": torch.ones(2),
    "an array": np.ones(2),
    "a huge number": 10**30,
    "an escape code": "\x1b[31m",
    "a lone surrogate": "\ud800",
    "a dtype of integers": torch.int8,
}
SEEDS = {name: value for name, value in ODD.items() if name != "a huge number"} | {"true": True, "digits": "1"}
Call = Callable[[Path, Path, Any], object]


def model(folder: Path) -> pairform.Model:
    return pairform.load(folder)


CALLS: dict[str, tuple[dict[str, Any], Call]] = {
    "build device": (ODD | {"nothing": None}, lambda folder, _, odd: pairform.build(folder, device=odd)),
    "build dtype": (ODD, lambda folder, _, odd: pairform.build(folder, dtype=odd)),
    "build kernel": (ODD, lambda folder, _, odd: pairform.build(folder, kernel=odd)),
    "build seed": (SEEDS, lambda folder, _, odd: pairform.build(folder, seed=odd)),
    "load prepack": (ODD, lambda folder, _, odd: pairform.load(folder, prepack=odd)),
    "load quantise": (ODD, lambda folder, _, odd: pairform.load(folder, quantise=odd)),
    "load kernel": (ODD, lambda folder, _, odd: pairform.load(folder, kernel=odd)),
    "save format": (ODD, lambda folder, out, odd: pairform.save(model(folder), out, format=odd)),
    "export format": (ODD, lambda folder, out, odd: pairform.export(folder, out, format=odd)),
    "extract part": (ODD, lambda folder, out, odd: pairform.extract(folder, out, part=odd)),
    "convert format": (ODD, lambda folder, out, odd: pairform.convert(encoder=folder, decoder=folder, out=out, format=odd)),
    "plan options": (ODD, lambda folder, _, odd: pairform.plan(encoder=folder, decoder=folder, options=odd)),
    "execute plan": (ODD, lambda _, out, odd: pairform.execute(odd, out)),
    "carry seed": (SEEDS, lambda folder, _, odd: pairform.carry(folder, seed=odd)),
    "resize_vocabulary model": (ODD, lambda _, __, odd: pairform.resize_vocabulary(odd, 100)),
    "resize_vocabulary size": (SEEDS, lambda folder, _, odd: pairform.resize_vocabulary(model(folder), odd)),
    "resize_vocabulary seed": (SEEDS, lambda folder, _, odd: pairform.resize_vocabulary(model(folder), 100, seed=odd)),
    "read_pictures size": ({"a huge number": 10**30, "true": True}, lambda _, __, odd: pairform.read_pictures([], odd)),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gemma2(tmp_path_factory.mktemp("model") / "gemma", num_hidden_layers=1)


@pytest.mark.parametrize(("call", "kind"), [(call, kind) for call, (kinds, _) in CALLS.items() for kind in kinds])
def test_an_argument_that_means_nothing_is_named(call: str, kind: str, folder: Path, tmp_path: Path) -> None:
    kinds, run = CALLS[call]
    message = refused(lambda: run(folder, tmp_path / "new" / "out", kinds[kind]), call.split()[1])
    assert message.isprintable()
    assert len(message) < 500
    assert contents(tmp_path) == []


def test_revisions_must_be_an_object(folder: Path) -> None:
    wrong: Any = 1.5
    refused(lambda: pairform.plan(encoder=folder, decoder=folder, revisions=wrong), "revisions")


def test_the_name_of_a_dtype_leads_to_the_dtype(folder: Path) -> None:
    wrong: Any = "bfloat16"
    refused(lambda: pairform.load(folder, dtype=wrong), "dtype", "Did you mean torch.bfloat16?")


def test_a_seed_of_numpys_is_a_whole_number(folder: Path) -> None:
    seed: Any = np.int64(7)
    one, two = (pairform.build(folder, seed=value) for value in (seed, 7))
    assert all(mine.equal(other) for mine, other in zip(one.parameters(), two.parameters(), strict=True))


def test_an_empty_path_is_no_folder_to_write(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    refused(lambda: pairform.save(model(folder), ""), "an empty path")
    refused(lambda: pairform.convert(encoder=folder, decoder=folder, out=""), "an empty path")
    assert contents(tmp_path) == ["here"]


def test_a_picture_must_be_a_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "picture.png")
    refused(lambda: pairform.read_pictures(tmp_path / "picture.png", 8), "picture.png", "a named pipe")
    refused(lambda: pairform.read_pictures("/dev/zero", 8), "/dev/zero", "a character device")
