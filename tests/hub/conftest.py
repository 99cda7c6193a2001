"""A hub on this machine, models to publish, and huggingface_hub set up for both."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import pairform
from tests.checkpoints import gemma2
from tests.hub.server import OWNER, Hub, running
from tests.tokenizers_small import tokenizer


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub, which this process uses as the owner of all repositories, with an empty cache."""
    from huggingface_hub import constants

    with running() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        monkeypatch.setenv("HF_TOKEN", OWNER)
        yield hub


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A converted pair with a tokenizer, its weights in several files. Do not write into it."""
    folder = tmp_path_factory.mktemp("published")
    sources = [tokenizer(gemma2(folder / name, seed=seed)) for seed, name in enumerate(("large", "small"))]
    pairform.convert(encoder=sources[0], decoder=sources[1], out=folder / "pair", max_shard_size="120KB")
    return folder / "pair"
