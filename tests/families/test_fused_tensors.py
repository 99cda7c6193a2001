"""Tensors that hold several of ours, in folders of a made-up family that stores the spec itself in config.json."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

import pairform
from pairform.assemblies import families
from pairform.assemblies.checkpoints.reading.checkpoint import open_checkpoint
from pairform.assemblies.checkpoints.reading.safetensors_file import SafetensorsFile
from pairform.assemblies.families.family import Family, Fused, NameTable, Row
from tests.broken.damage import refused
from tests.initialisation.small_models import alone, attention, stack

ATTENTION, MIXTURE = "decoder.layers.{layer}.self_attention.block.", "decoder.layers.{layer}.feed_forward.block."
EXPERT = MIXTURE + "experts.{expert}."
PROJECTIONS = tuple(f"{ATTENTION}{side}_proj.{{tensor}}" for side in "qkv")
GATED = (EXPERT + "gate_proj.weight", EXPERT + "up_proj.weight")
REST = (
    Row("embedding", "decoder.embedding.weight"),
    Row("norm", "decoder.norm.weight"),
    Row("head", "head.weight"),
    Row("{layer}.out.{tensor}", ATTENTION + "o_proj.{tensor}"),
    Row("{layer}.router", MIXTURE + "router"),
    Row("{layer}.attn.norm", "decoder.layers.{layer}.self_attention.pre_norm.weight"),
    Row("{layer}.ff.norm", "decoder.layers.{layer}.feed_forward.pre_norm.weight"),
    Row("{layer}.{expert}.down", EXPERT + "down_proj.weight"),
)
TABLES = {
    "rows": NameTable((Fused("{layer}.qkv.{tensor}", PROJECTIONS), Fused("{layer}.experts", GATED), *REST)),
    "columns": NameTable((Fused("{layer}.qkv.{tensor}", PROJECTIONS, True), Fused("{layer}.experts", GATED, True), *REST)),
}


def made_up(table: NameTable) -> Family:
    return Family("made_up", table, lambda config: config["spec"], lambda spec: {"spec": spec.document()}, lambda spec: True)


@pytest.fixture(params=TABLES)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The only family there is stores parts as rows of a tensor, or as columns."""
    family = made_up(TABLES[request.param])
    monkeypatch.setattr(families, "ALL", (family,))
    monkeypatch.setattr(families, "FAMILIES", {"made_up": family})
    return request.param


def document(experts: int = 3, *, bias: Any = True, **branches: Any) -> dict[str, Any]:
    expert = {"name": "gated", "hidden": 12}
    mixture = {"name": "mixture", "experts": experts, "top_k": 2, "expert": expert}
    own = {"self_attention": attention(mask={"causal": True}, bias=bias), "feed_forward": mixture}
    return alone(stack(2, branches=own | branches))


def folder(tmp_path: Path, seed: int = 0, dtype: torch.dtype = torch.float32, **changes: Any) -> tuple[pairform.Model, Path]:
    model = pairform.build(document(**changes), seed=seed, dtype=dtype)
    pairform.save(model, tmp_path / "theirs", format="transformers", max_shard_size=20_000)
    return model, tmp_path / "theirs"


def stored(folder: Path) -> dict[str, Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def equal(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_a_fused_tensor_is_its_parts_one_after_another(kind: str, tmp_path: Path) -> None:
    model, path = folder(tmp_path)
    ours, theirs = model.state_dict(), stored(path)
    for layer in range(2):
        own = {name.removeprefix(f"decoder.layers.{layer}."): tensor for name, tensor in ours.items()}
        qkv = torch.cat([own[f"self_attention.block.{side}_proj.weight"] for side in "qkv"])
        block = "feed_forward.block.experts"
        experts = [torch.cat([own[f"{block}.{one}.{side}_proj.weight"] for side in ("gate", "up")]) for one in range(3)]
        assert torch.equal(theirs[f"{layer}.qkv.weight"], qkv.T if kind == "columns" else qkv)
        assert torch.equal(
            theirs[f"{layer}.qkv.bias"], torch.cat([own[f"self_attention.block.{side}_proj.bias"] for side in "qkv"])
        )
        together = torch.stack([one.T if kind == "columns" else one for one in experts])
        assert torch.equal(theirs[f"{layer}.experts"], together)


def test_folders_with_fused_tensors_are_read_and_copied(kind: str, tmp_path: Path) -> None:
    model, path = folder(tmp_path)
    loaded = pairform.load(path)
    assert equal(loaded.state_dict(), model.state_dict())
    assert all(parameter.is_contiguous() for parameter in loaded.parameters())
    assert pairform.verify(path).ok
    pairform.export(path, tmp_path / "ours", format="pairform")
    assert equal(pairform.load(tmp_path / "ours").state_dict(), model.state_dict())
    pairform.export(tmp_path / "ours", tmp_path / "back", max_shard_size=20_000)
    assert equal(stored(tmp_path / "back"), stored(path))
    assert pairform.verify(tmp_path / "back").ok


def test_a_fused_source_gives_the_same_pair(kind: str, tmp_path: Path) -> None:
    model, _ = folder(tmp_path)
    pairform.save(model, tmp_path / "ours")
    made = {name: tmp_path / f"pair-{name}" for name in ("ours", "theirs")}
    for name, out in made.items():
        pairform.convert(encoder=tmp_path / name, decoder=tmp_path / name, out=out)
    first, second = (pairform.load(out).state_dict() for out in made.values())
    assert equal(first, second)


@given(seed=st.integers(0, 1000), data=st.data())
def test_any_rows_of_a_part_are_read_alone(seed: int, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    table = TABLES[data.draw(st.sampled_from(sorted(TABLES)))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(families, "ALL", (made_up(table),))
        patch.setattr(families, "FAMILIES", {"made_up": made_up(table)})
        model, path = folder(tmp_path_factory.mktemp("fused"), seed, experts=data.draw(st.integers(2, 4)))
        tensors = open_checkpoint(path).tensors
    wanted = model.state_dict()
    assert tensors.keys() == wanted.keys()
    name = data.draw(st.sampled_from(sorted(wanted)))
    start = data.draw(st.integers(0, len(wanted[name])))
    stop = data.draw(st.integers(start, len(wanted[name])))
    rows = data.draw(st.none() | st.integers(1, 5))
    pieces = list(tensors[name].pieces(rows, stop, start))
    assert torch.equal(torch.cat(pieces) if pieces else wanted[name][:0], wanted[name][start:stop])
    assert rows is None or all(len(piece) <= rows for piece in pieces)
    assert torch.equal(tensors[name].read(), wanted[name])
    assert tensors[name].path in [*path.glob("*.safetensors")]


def test_a_part_of_rows_is_read_without_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "ALL", (made_up(TABLES["rows"]),))
    monkeypatch.setattr(families, "FAMILIES", {"made_up": made_up(TABLES["rows"])})
    _, path = folder(tmp_path)
    tensor = open_checkpoint(path).tensors["decoder.layers.0.feed_forward.block.experts.1.up_proj.weight"]
    read: list[int] = []
    plain = SafetensorsFile.read_into

    def counted(self: SafetensorsFile, buffer: memoryview, begin: int) -> None:
        read.append(len(buffer))
        plain(self, buffer, begin)

    monkeypatch.setattr(SafetensorsFile, "read_into", counted)
    assert sum(len(piece) for piece in tensor.pieces()) == 12
    assert sum(read) == tensor.nbytes


def test_shapes_that_the_parts_do_not_add_up_to_are_refused(kind: str, tmp_path: Path) -> None:
    _, path = folder(tmp_path)
    tensors = stored(path)
    for name, found in {"0.qkv.weight": (63, 32), "0.qkv.bias": (65,), "1.experts": (2, 24, 32)}.items():
        damaged = {**tensors, name: torch.zeros(found)}
        for file in path.glob("model*"):
            file.unlink()
        save_file(damaged, path / "model.safetensors", metadata={"format": "pt"})
        problem = refused(lambda: pairform.load(path))
        assert f"{name}: found the shape {list(found)}" in problem, problem
        assert "as the configuration says: decoder.layers." in problem


def test_fused_tensors_that_a_model_lacks_are_unknown(kind: str, tmp_path: Path) -> None:
    _, path = folder(tmp_path, bias=False)
    tensors = stored(path) | {"0.qkv.bias": torch.zeros(64)}
    for file in path.glob("model*"):
        file.unlink()
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    assert "0.qkv.bias: found a tensor that this model does not have" in refused(lambda: pairform.load(path))


def test_parts_of_two_dtypes_are_not_written_as_one_tensor(kind: str, tmp_path: Path) -> None:
    model = pairform.build(document(), seed=0)
    model.get_submodule("decoder.layers.0.self_attention.block.q_proj").to(torch.float64)
    problem = refused(lambda: pairform.save(model, tmp_path / "theirs", format="transformers"))
    assert "0.qkv.weight: found parts of several dtypes: torch.float32, torch.float64" in problem
    assert not (tmp_path / "theirs").exists()


def test_a_tensor_is_not_read_both_alone_and_in_a_fused_one(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, path = folder(tmp_path)
    table = NameTable((*TABLES[kind].rows, Row("{layer}.query", ATTENTION + "q_proj.weight")))
    monkeypatch.setattr(families, "FAMILIES", {"made_up": made_up(table)})
    file = next(file for file in path.glob("*.safetensors") if "0.norm" not in load_file(file))
    tensors = load_file(file) | {"0.query": torch.zeros(32, 32)}
    save_file(tensors, file, metadata={"format": "pt"})
    index = json.loads((path / "model.safetensors.index.json").read_text())
    index["weight_map"]["0.query"] = file.name
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "q_proj.weight a second time" in refused(lambda: pairform.load(path))
