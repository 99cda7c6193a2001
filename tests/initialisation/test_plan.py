"""A plan says where every tensor comes from and goes to; saved as JSON it is the same plan."""

from math import prod
from pathlib import Path
from typing import Any

import pytest

import pairform
from pairform.assemblies.checkpoints.reading.checkpoint import open_checkpoint
from pairform.assemblies.specs.layer import LayerSpec
from tests.broken.damage import contents, refused
from tests.checkpoints import gemma2, t5gemma
from tests.initialisation.sources import rows, tensors, through_json

WIDER: dict[str, Any] = {"hidden_size": 48, "num_attention_heads": 8, "num_key_value_heads": 4, "num_hidden_layers": 2}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    parent = tmp_path_factory.mktemp("sources")
    made = {
        "gemma": gemma2(parent / "gemma"),
        "other": gemma2(parent / "other", seed=1),
        "wide": gemma2(parent / "wide", seed=2, **WIDER),
        "t5": t5gemma(parent / "t5", encoder=WIDER),
    }
    pairform.save(pairform.load(made["gemma"]), parent / "ours")
    pairform.save(pairform.load(made["t5"]), parent / "ours t5")
    return made | {"ours": parent / "ours", "ours t5": parent / "ours t5"}


PAIRS = [
    ("gemma", "other"),
    ("wide", "gemma"),
    ("gemma", "wide"),
    ("ours", "other"),
    ("gemma", "ours"),
    ("t5", "gemma"),
    ("gemma", "t5"),
    ("t5", "t5"),
    ("ours t5", "ours t5"),
]


@pytest.fixture(params=PAIRS, ids="-".join)
def pair(request: pytest.FixtureRequest, folders: dict[str, Path]) -> dict[str, Any]:
    encoder, decoder = request.param
    return {"encoder": folders[encoder], "decoder": folders[decoder]}


def test_every_target_tensor_is_planned_once_and_every_parameter_counted(pair: dict[str, Any]) -> None:
    plan = pairform.plan(**pair)
    shapes = {name: tuple(tensor.shape) for name, tensor in pairform.build(plan.spec, device="meta").named_parameters()}
    assert [row.target for row in plan.targets] == list(shapes)
    assert all(row.shape == shapes[row.target] for row in plan.targets)
    made = sum(plan.totals[kind]["parameters"] for kind in ("copied", "derived", "fresh"))
    assert made == sum(prod(shape) for shape in shapes.values())


def test_a_plans_repr_is_one_short_line(folders: dict[str, Path]) -> None:
    plan = pairform.plan(encoder=folders["wide"], decoder=folders["gemma"])
    counts = {kind: total["tensors"] for kind, total in plan.totals.items()}
    assert all(f"{count} {kind}" in repr(plan) for kind, count in counts.items() if count)
    assert f"{len(plan.targets)} tensors" in repr(plan)
    assert "document()" in repr(plan)
    assert len(repr(plan)) < 200


def test_every_source_tensor_goes_somewhere_or_says_why_not(pair: dict[str, Any]) -> None:
    plan = pairform.plan(**pair)
    for role, folder in pair.items():
        origins = [row for row in plan.origins if row.source.role == role]
        assert sorted(row.source.tensor for row in origins) == sorted(open_checkpoint(folder).tensors)
    assert all(bool(row.targets) != bool(row.dropped) for row in plan.origins)
    used = {(row.source.role, row.source.tensor, row.target) for row in plan.targets if row.source}
    assert used == {(row.source.role, row.source.tensor, target) for row in plan.origins for target in row.targets}


def test_a_plan_read_from_json_is_the_same_and_does_the_same(pair: dict[str, Any], tmp_path: Path) -> None:
    plan = pairform.plan(**pair, cross_attention="random", seed=5)
    again = through_json(plan)
    assert again == plan
    pairform.execute(again, tmp_path / "executed")
    pairform.convert(**pair, cross_attention="random", seed=5, out=tmp_path / "converted")
    files = contents(tmp_path / "converted")
    assert files == contents(tmp_path / "executed")
    assert all((tmp_path / "converted" / file).read_bytes() == (tmp_path / "executed" / file).read_bytes() for file in files)


def test_planning_reads_no_weights_and_writes_nothing(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from pairform.assemblies.checkpoints.reading.safetensors_file import StoredTensor

    monkeypatch.setattr(StoredTensor, "read", lambda *_: pytest.fail("a tensor was read"))
    before = contents(folders["gemma"].parent)
    pairform.plan(encoder=folders["gemma"], decoder=folders["wide"])
    assert contents(folders["gemma"].parent) == before


def window(layer: LayerSpec) -> Any:
    return layer.branches["self_attention"].document()["mask"].get("window")


@pytest.mark.parametrize(
    ("rule", "kept"), [({"every": 2}, [0, 2, 4]), ({"first": 2}, [0, 1]), ({"only": [1, 2, 5]}, [1, 2, 5]), ({"every": 6}, [0])]
)
@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_kept_layers_keep_their_weights_and_their_kind(
    part: str, rule: dict[str, Any], kept: list[int], tmp_path: Path
) -> None:
    deep = gemma2(tmp_path / "deep", num_hidden_layers=6)
    options: dict[str, Any] = {f"{part}_layers": rule}
    plan = pairform.plan(encoder=deep, decoder=deep, **options)
    stack = plan.spec.stacks[part]
    other = plan.spec.stacks["decoder" if part == "encoder" else "encoder"]
    assert (stack.depth, other.depth) == (len(kept), 6)
    source = open_checkpoint(deep).spec.last
    for new, old in enumerate(kept):
        for place in ("self_attention.block.q_proj", "feed_forward.block.down_proj", "feed_forward.post_norm"):
            row = rows(plan)[f"{part}.layers.{new}.{place}.weight"]
            assert row.source.tensor == f"decoder.layers.{old}.{place}.weight"
        assert window(stack.layers[new]) == window(source.layers[old])
    dropped = {row.source.tensor: row.dropped for row in plan.origins if row.source.role == part and row.dropped}
    assert {int(name.split(".")[2]) for name in dropped} == set(range(6)) - set(kept)
    assert all("is not kept" in reason for reason in dropped.values())


def test_a_kept_layer_runs_as_it_did_in_its_source(tmp_path: Path) -> None:
    import torch

    deep = gemma2(tmp_path / "deep", num_hidden_layers=6)
    pairform.convert(
        encoder=deep, decoder=deep, decoder_layers={"only": [1, 2, 5]}, cross_attention="zero_output", out=tmp_path / "pair"
    )
    ids = torch.randint(3, 96, (2, 12), generator=torch.Generator().manual_seed(0))
    source, made = pairform.load(deep), pairform.load(tmp_path / "pair")
    assert source.decoder is not None
    source.decoder.layers = torch.nn.ModuleList(source.decoder.layers[index] for index in (1, 2, 5))
    torch.testing.assert_close(made(ids, decoder_input_ids=ids).logits, source(ids).logits)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"encoder_layers": {"first": 9}}, ("encoder_layers", "at most 4")),
        ({"decoder_layers": {"only": [2, 1]}}, ("decoder_layers", "ascending")),
        ({"decoder_layers": {"only": [0, 4]}}, ("decoder_layers", "0 to 3")),
        ({"decoder_layers": {"only": []}}, ("decoder_layers", "0 to 3")),
        ({"decoder_layers": {"first": 1, "every": 2}}, ("decoder_layers", "one of every, first and only")),
        ({"decoder_layers": {"every": 0}}, ("decoder_layers.every", "0")),
        ({"decoder_layers": "each:2"}, ("decoder_layers", "each:2", "every:N")),
        ({"cross_attention": "copy"}, ("cross_attention", "'copy'", "zero_output")),
        ({"seed": "x"}, ("seed", "'x'")),
        ({"dtype": "int8"}, ("dtype", "'int8'", "bfloat16")),
        ({"colour": "blue"}, ("colour", "unknown field")),
    ],
)
def test_options_that_make_no_sense_are_refused(
    options: dict[str, Any], words: tuple[str, ...], folders: dict[str, Path]
) -> None:
    refused(lambda: pairform.plan(encoder=folders["gemma"], decoder=folders["other"], **options), *words)


DECODER = "decoder.layer.branches"
MISFITS: dict[str, tuple[dict[str, Any], str]] = {
    "width": ({"encoder": {"width": 64}}, "encoder.width"),
    "depth": ({"decoder": {"depth": 5}}, "decoder.depth"),
    "hidden": ({"encoder": {"layer": {"branches": {"feed_forward": {"hidden": 64}}}}}, "feed_forward.block.gate_proj"),
    "heads": (
        {"decoder": {"layer": {"branches": {"self_attention": {"heads": 8}}}}},
        "decoder.layers.0.self_attention.block.q_proj",
    ),
    "head_dim": (
        {"decoder": {"layer": {"branches": {"self_attention": {"head_dim": 16}}}}},
        "decoder.layers.0.self_attention.block.q_proj",
    ),
}


@pytest.mark.parametrize("field", MISFITS)
def test_a_spec_that_does_not_match_its_source_is_refused(field: str, folders: dict[str, Path], tmp_path: Path) -> None:
    patch, where = MISFITS[field]
    pair: dict[str, Any] = {"encoder": folders["gemma"], "decoder": folders["other"]}
    refused(lambda: pairform.convert(**pair, patch=patch, out=tmp_path / "new" / "out"), where)
    assert contents(tmp_path) == []


def test_sources_and_stacks_must_correspond(folders: dict[str, Path]) -> None:
    gemma = folders["gemma"]
    spec = pairform.plan(encoder=gemma, decoder=gemma).spec
    refused(lambda: pairform.plan(spec=spec), "encoder", "no source")
    refused(lambda: pairform.plan(encoder=gemma, spec=spec), "decoder", "no source")
    refused(lambda: pairform.plan(encoder=gemma, decoder=gemma, spec=pairform.load(gemma).spec), "encoder", "only decoder")
    refused(lambda: pairform.plan(encoder=gemma), "spec", "no spec")
    refused(lambda: pairform.plan(), "spec", "no spec")


EDITS: dict[str, Any] = {
    "a target is missing": lambda plan: plan["targets"].pop(0),
    "a target is there twice": lambda plan: plan["targets"].append(plan["targets"][0]),
    "another shape": lambda plan: plan["targets"][0].update(shape=[3, 3]),
    "an unknown dtype": lambda plan: plan["targets"][0].update(dtype="int8"),
    "an unknown operation": lambda plan: plan["targets"][0].update(operation={"name": "guess"}),
    "a copy of nothing": lambda plan: plan["targets"][0].pop("source"),
    "a source tensor that is not there": lambda plan: plan["targets"][0]["source"].update(tensor="decoder.none"),
    "a source tensor of another shape": lambda plan: plan["targets"][0]["source"].update(tensor="decoder.norm.weight"),
    "heads that do not fit": lambda plan: plan["targets"][1].update(
        operation={"name": "mean_heads", "head_dim": 7, "group": 2}
    ),
    "rows that are not there": lambda plan: plan["targets"][0].update(
        operation={"name": "rows", "kept": 500, "initial": {"name": "constant"}}
    ),
    "a source that has moved": lambda plan: plan["sources"]["encoder"].update(path="/no/such/folder"),
    "a source that is missing": lambda plan: plan["sources"].pop("encoder"),
    "no spec": lambda plan: plan.pop("spec"),
}


@pytest.mark.parametrize("kind", EDITS)
def test_an_edited_plan_is_checked_before_anything_is_written(kind: str, folders: dict[str, Path], tmp_path: Path) -> None:
    document = pairform.plan(encoder=folders["gemma"], decoder=folders["other"]).document()
    EDITS[kind](document)
    refused(lambda: pairform.execute(pairform.Plan.read(document), tmp_path / "new" / "out"))
    assert contents(tmp_path) == []


def test_an_edited_plan_may_choose_another_origin(folders: dict[str, Path], tmp_path: Path) -> None:
    document = pairform.plan(encoder=folders["gemma"], decoder=folders["other"]).document()
    target, name = "encoder.layers.0.self_attention.block.q_proj.weight", "decoder.layers.3.self_attention.block.q_proj.weight"
    row = next(row for row in document["targets"] if row["target"] == target)
    row["source"] = {"role": "decoder", "tensor": name}
    pairform.execute(pairform.Plan.read(document), tmp_path / "out")
    assert tensors(tmp_path / "out")[target].equal(tensors(folders["other"])[name])
