"""The command line, two sources and the pair that they make."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing

import pairform
from tests import small_vision
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


@pytest.fixture(params=["encoder_decoder", "decoder_only"])
def seeing(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A model that reads pictures, whose places a text marks by `<image>`."""
    spec = small_vision.document(request.param, begin_token=4, end_token=5)
    pairform.save(pairform.build(spec, seed=0), tmp_path / "seeing")
    vocabulary = {"<pad>": 0, "<eos>": 1, "<bos>": 2, "<image>": 4, "the": 7, "fox": 8}
    words = Tokenizer(WordLevel(vocabulary | {f"word{token}": token for token in range(9, 32)}, "<pad>"))
    words.pre_tokenizer = WhitespaceSplit()
    words.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    words.save(str(tmp_path / "seeing" / "tokenizer.json"))
    return tmp_path / "seeing"
