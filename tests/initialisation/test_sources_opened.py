"""convert opens each file of its sources once and validates each source's spec once."""

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import pairform
from tests.checkpoints import gemma2

FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file was opened, by folder and name."""
    found: Counter[str] = Counter()
    real = os.open

    def counting(path: Any, *rest: Any, **options: Any) -> int:
        found["/".join(Path(path).parts[-2:])] += 1
        return real(path, *rest, **options)

    monkeypatch.setattr(os, "open", counting)
    return found


@pytest.fixture
def validated(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many specs of each assembly were validated. Both sources are decoder-only."""
    found: Counter[str] = Counter()
    real = pairform.ModelSpec.read

    def counting(document: Mapping[str, Any], *, where: str = "") -> pairform.ModelSpec:
        found[document["assembly"]] += 1
        return real(document, where=where)

    monkeypatch.setattr(pairform.ModelSpec, "read", counting)
    return found


def with_tokenizer(folder: Path) -> Path:
    (folder / "tokenizer.json").write_text("{}")
    return folder


def test_each_source_is_opened_once(tmp_path: Path, opened: Counter[str], validated: Counter[str]) -> None:
    encoder, decoder = (with_tokenizer(gemma2(tmp_path / name, seed=seed)) for seed, name in enumerate(("left", "right")))
    opened.clear()
    pairform.convert(encoder=encoder, decoder=decoder, out=tmp_path / "out")
    files = [f"{folder}/{name}" for folder in ("left", "right") for name in FILES]
    assert {file: opened[file] for file in files} == dict.fromkeys(files, 1)
    assert validated["decoder_only"] == 2


def test_each_shard_is_opened_once(tmp_path: Path, opened: Counter[str], validated: Counter[str]) -> None:
    pairform.save(pairform.load(gemma2(tmp_path / "gemma")), tmp_path / "ours", max_shard_size="20KB")
    shards = sorted(f"ours/{path.name}" for path in (tmp_path / "ours").glob("*.safetensors"))
    assert len(shards) > 2
    opened.clear()
    validated.clear()
    pairform.convert(encoder=tmp_path / "ours", decoder=tmp_path / "ours", out=tmp_path / "out")
    names = (*shards, "ours/model.safetensors.index.json", "ours/spec.json")
    assert [opened[name] for name in names] == [1] * len(names)
    assert validated["decoder_only"] == 1
