"""A plan in short, against one whose rows are counted by hand."""

from typing import Any

import pytest

import pairform
from pairform.assemblies.initialisation.operations import Copy, Fresh
from pairform.assemblies.initialisation.options import Options
from pairform.assemblies.initialisation.plan import Plan, Source, SourceFolder, SourceRow, TargetRow
from pairform.assemblies.initialisation.plan_summary import Group, dropped, groups, place, size_in_bytes, sources_of
from pairform.blocks.functional.initializers import Normal
from tests.small_pairs import small_pair


@pytest.mark.parametrize(
    ("tensor", "stack", "part"),
    [
        ("decoder.layers.3.self_attention.block.q_proj.weight", "decoder", "layers.*.self_attention"),
        (
            "decoder.layers.12.feed_forward.block.experts.2.up_proj.weight",
            "decoder",
            "layers.*.feed_forward.block.experts.*.up_proj",
        ),
        ("encoder.embedding.weight", "encoder", "embedding"),
        ("encoder.vision.projector.norm.weight", "encoder", "vision.projector.norm"),
        ("head.weight", "head", "weight"),
    ],
)
def test_the_place_of_a_tensor(tensor: str, stack: str, part: str) -> None:
    assert place(tensor) == (stack, part)


def row(target: str, shape: tuple[int, ...], source: tuple[str, str] | None, dtype: Any = "float32") -> TargetRow:
    """A copy of a source's tensor, or a fresh tensor."""
    operation = Fresh(initial=Normal(std=0.5)) if source is None else Copy()
    origin = None if source is None else Source.read({"role": source[0], "tensor": source[1]})
    return TargetRow(target=target, shape=shape, dtype=dtype, operation=operation, source=origin)


def origin(role: str, tensor: str, shape: tuple[int, ...], reason: str | None) -> SourceRow:
    targets = ("head.weight",) if reason is None else ()
    return SourceRow(source=Source.read({"role": role, "tensor": tensor}), shape=shape, targets=targets, dropped=reason)


OWN, CROSS = "decoder.layers.{}.self_attention.{}.weight", "decoder.layers.{}.cross_attention.{}.weight"
PLAN = Plan(
    spec=small_pair(),
    options=Options(),
    sources={
        "encoder": SourceFolder(path="/reads", layers=(0, 1)),
        "decoder": SourceFolder(path="/writes", layers=(0, 1)),
        "model": SourceFolder(path="", layers=()),
    },
    targets=(
        row("encoder.layers.0.self_attention.q.weight", (4, 3), ("encoder", OWN.format(0, "q"))),
        row("encoder.layers.1.self_attention.q.weight", (4, 3), ("encoder", OWN.format(1, "q"))),
        row("encoder.norm.weight", (3,), None, "float64"),
        row(OWN.format(0, "q"), (4, 5), ("decoder", OWN.format(0, "q")), "bfloat16"),
        row(CROSS.format(0, "q"), (4, 5), ("decoder", OWN.format(0, "q")), "float16"),
        row(CROSS.format(0, "k"), (2, 5), None),
        row("head.weight", (7,), ("model", "head.weight")),
    ),
    origins=(
        origin("encoder", OWN.format(0, "q"), (4, 3), None),
        origin("encoder", OWN.format(2, "q"), (4, 3), "is not kept"),
        origin("encoder", OWN.format(3, "q"), (4, 3), "is not kept"),
        origin("decoder", OWN.format(3, "q"), (4, 5), "is not kept"),
        origin("decoder", "decoder.norm.weight", (5,), "is not kept"),
        origin("decoder", OWN.format(3, "k"), (2, 5), "another reason"),
    ),
)


def test_like_tensors_of_like_places_are_one_group() -> None:
    own, cross = "layers.*.self_attention", "layers.*.cross_attention"
    assert groups(PLAN) == [
        Group("encoder", own, "copy", "", [f"encoder.layers.{layer}.self_attention.q.weight" for layer in (0, 1)], 24),
        Group("encoder", "norm", "normal, std 0.5", "", ["encoder.norm.weight"], 3),
        Group("decoder", own, "copy", "", [OWN.format(0, "q")], 20),
        Group("decoder", cross, "copy", own, [CROSS.format(0, "q")], 20),
        Group("decoder", cross, "normal, std 0.5", "", [CROSS.format(0, "k")], 10),
        Group("head", "weight", "copy", "", ["head.weight"], 7),
    ]
    assert dropped(PLAN) == [
        Group("encoder", own, "is not kept", "", [OWN.format(layer, "q") for layer in (2, 3)], 24),
        Group("decoder", own, "is not kept", "", [OWN.format(3, "q")], 20),
        Group("decoder", "norm", "is not kept", "", ["decoder.norm.weight"], 5),
        Group("decoder", own, "another reason", "", [OWN.format(3, "k")], 10),
    ]


def test_bytes_and_folders() -> None:
    assert size_in_bytes(PLAN) == (24 + 10 + 7) * 4 + 3 * 8 + 20 * 2 + 20 * 2
    folders = {stack: list(sources_of(PLAN, stack)) for stack in ("encoder", "decoder", "head", "bridge")}
    assert folders == {"encoder": ["/reads"], "decoder": ["/writes"], "head": ["the model"], "bridge": []}


def test_the_groups_of_a_real_plan_hold_each_tensor_once() -> None:
    _, plan = pairform.carry(pairform.build(small_pair(), seed=0), patch={"decoder": {"depth": 1}})
    assert sorted(name for group in groups(plan) for name in group.tensors) == sorted(row.target for row in plan.targets)
    left = [row.source.tensor for row in plan.origins if row.dropped]
    assert sorted(name for group in dropped(plan) for name in group.tensors) == sorted(left) != []
