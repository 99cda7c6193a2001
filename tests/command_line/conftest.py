"""The command line, two sources and the pair that they make."""

from pathlib import Path

import pytest

import pairform
from tests.checkpoints import gemma2
from tests.command_line.runner import CommandLine
from tests.tokenizers_small import tokenizer


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(monkeypatch, capsys)


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A larger and a smaller Gemma 2 with one tokenizer."""
    folder = tmp_path_factory.mktemp("sources")
    large = gemma2(folder / "large", seed=1, hidden_size=48, num_hidden_layers=6)
    small = gemma2(folder / "small", seed=2)
    return tokenizer(large), tokenizer(small)


@pytest.fixture(scope="session")
def pair(sources: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The larger one's encoder with the smaller one's decoder."""
    out = tmp_path_factory.mktemp("converted") / "pair"
    pairform.convert(encoder=sources[0], decoder=sources[1], out=out)
    return out
