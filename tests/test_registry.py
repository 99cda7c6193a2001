"""Registries: names, near names, duplicates, plugins."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import pytest
from torch import Tensor, nn

import pairform
from pairform.registry import KINDS, BlockSpec, Registry, Sizes, SpecError


class Doubling(nn.Module):
    """A norm that is none."""

    class Spec(BlockSpec):
        name: Literal["doubling"] = "doubling"

    def __init__(self, spec: Spec, sizes: Sizes) -> None:
        super().__init__()

    def forward(self, hidden: Tensor) -> Tensor:
        return 2 * hidden


class Other(Doubling):
    """Another class of the same name."""


@pytest.fixture
def doubling() -> Iterator[None]:
    pairform.register("norm")(Doubling)
    yield
    KINDS["norm"]._blocks.pop("doubling", None)


def test_registries_are_mappings_from_names_to_classes() -> None:
    norms = pairform.blocks("norm")
    assert isinstance(norms, Mapping)
    assert list(norms) == sorted({"layernorm", "none", "rmsnorm", *norms})
    assert norms["rmsnorm"].Spec().eps == 1e-6
    assert set(pairform.blocks()) == {
        "norm",
        "residual",
        "position",
        "absolute_position",
        "attention",
        "feed_forward",
        "embedding",
        "projector",
        "bridge",
        "head",
    }


def test_a_wrong_name_suggests_near_ones() -> None:
    with pytest.raises(SpecError, match="Did you mean 'rmsnorm'"):
        pairform.blocks("norm")["rmsnrom"]
    with pytest.raises(SpecError, match="Did you mean 'norm'"):
        pairform.blocks("norms")


@pytest.mark.usefixtures("doubling")
def test_a_registered_block_can_be_named_built_and_listed() -> None:
    spec = pairform.load_spec("t5gemma-s-s", {"decoder": {"layer": {"norm": {"name": "doubling"}}}})
    assert spec.decoder is not None
    assert spec.decoder.layers[0].norm == Doubling.Spec()
    assert "doubling" in pairform.blocks("norm")
    assert "norm.doubling" in pairform.schema()["$defs"]


@pytest.mark.usefixtures("doubling")
def test_a_name_registered_twice_names_both_files() -> None:
    pairform.register("norm")(Doubling)  # the same class again is no conflict
    with pytest.raises(SpecError) as caught:
        pairform.register("norm")(Other)
    assert str(caught.value).count(__file__) == 2
    with pytest.raises(SpecError, match=r"norms\.py"):
        KINDS["norm"].add("rmsnorm", Other)


def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entries: str) -> Registry:
    """A registry that sees an installed package with these entry points."""
    metadata = tmp_path / "plugin-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[pairform.blocks]\n{entries}\n")
    monkeypatch.syspath_prepend(tmp_path)
    return Registry("norm", "test")


def test_other_packages_add_blocks_by_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = plugin(tmp_path, monkeypatch, f"norm.doubling = {__name__}:Doubling\nposition.other = nowhere:Nothing")
    assert list(registry) == ["doubling"]
    assert registry["doubling"].Spec().name == "doubling"


def test_a_broken_plugin_is_reported_when_its_block_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = plugin(tmp_path, monkeypatch, "norm.broken = package_that_is_not_there:Norm")
    assert "broken" in registry
    with pytest.raises(SpecError, match=r"norm\.broken: found ModuleNotFoundError while importing package_that_is_not_there"):
        registry["broken"]


def test_json_cannot_name_import_paths() -> None:
    with pytest.raises(SpecError, match="a block of kind norm"):
        pairform.load_spec("t5gemma-s-s", {"decoder": {"layer": {"norm": {"name": "torch.nn:Identity"}}}})
