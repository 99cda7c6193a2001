"""A block of one's own is one short file, and holds what every block holds once that file has run."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch

import pairform
from pairform.cli.block_docs import page
from tests.catalogue import test_every_block as every
from tests.catalogue.places import places
from tests.catalogue.test_half_precision import test_every_block_is_near_float64 as near
from tests.registries import forget_new_blocks

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_block.py"


def test_the_example_needs_forty_lines_and_is_a_block_like_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forget_new_blocks(monkeypatch)
    assert len(EXAMPLE.read_text("utf-8").splitlines()) <= 40
    assert "maxnorm" not in pairform.blocks("norm")
    spec = spec_from_file_location(EXAMPLE.stem, EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, EXAMPLE.stem, module)  # where the compiler looks for it
    spec.loader.exec_module(module)
    assert "norm.maxnorm" in pairform.schema()["$defs"]
    assert page("norm", "maxnorm").example == {"name": "maxnorm"}
    every.test_every_parameter_learns("norm", "maxnorm")
    every.test_it_decodes_with_a_cache_as_without("norm", "maxnorm")
    every.test_it_is_the_same_after_saving_and_loading("norm", "maxnorm", tmp_path)
    near("norm", "maxnorm", torch.bfloat16, autocast=False)
    every.check_compiles(places("norm", "maxnorm")["decoder"])
