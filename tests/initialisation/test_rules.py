"""What a plan says of every tensor of a stack and a head, against what is said here: no weight is read."""

from pathlib import Path
from typing import Any

import pytest
import torch

import pairform
from tests.broken.damage import refused
from tests.initialisation.small_models import alone, attention, saved, stack
from tests.initialisation.sources import rows

FRESH = "fresh"
Expected = dict[str, tuple[str, str | None]]
"""By the places of tensors in a stack: what makes them, and out of which place; all others are copies."""


def of_attention(**fields: Any) -> dict[str, Any]:
    return {"encoder": {"layer": {"branches": {"self_attention": fields}}}}


def in_layers(summary: str, *places: str, depth: int = 2) -> Expected:
    """Tensors of each layer, each made out of its own place."""
    names = [f"layers.{layer}.{place}.weight" for layer in range(depth) for place in places]
    return {name: (summary, None if summary == FRESH else name) for name in names}


KEYS = ("self_attention.block.k_proj", "self_attention.block.v_proj")
BRANCHES = ("self_attention", "feed_forward")
NO_WIDTH = attention(mask={"causal": True}, heads=4, kv_heads=2) | {"head_dim": None}
SCALED = {"name": "token", "scale": "sqrt_width"}
IMAGE = "embedding.end_of_image"
TABLE = "embedding.weight"
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], Expected]] = {
    "the same": ({}, {}, {}),
    "another kind of norm": (
        {},
        {"encoder": {"layer": {"norm": {"name": "layernorm"}}}},
        {
            f"{place}.{tensor}": (FRESH, None)
            for place in ("norm", *(f"layers.{layer}.{branch}.pre_norm" for layer in (0, 1) for branch in BRANCHES))
            for tensor in ("weight", "bias")
        },
    ),
    "fewer heads": ({}, of_attention(kv_heads=1), in_layers("mean of 2 heads", *KEYS)),
    "more heads": ({}, of_attention(kv_heads=4), in_layers("each head 2 times", *KEYS)),
    "heads whose number of rows does not divide the width": (
        {"branches": {"self_attention": attention(mask={"causal": True}, kv_heads=1, head_dim=12)}},
        of_attention(kv_heads=4),
        in_layers("each head 4 times", *KEYS),
    ),
    "heads as wide as the width allows": (
        {"branches": {"self_attention": NO_WIDTH}},
        of_attention(kv_heads=1, head_dim=8),
        in_layers("mean of 2 heads", *KEYS),
    ),
    "more words": ({}, {"encoder": {"vocabulary": 60}}, {TABLE: ("first 50 rows", TABLE)}),
    "fewer words": ({}, {"encoder": {"vocabulary": 40}}, {TABLE: ("first 40 rows", TABLE)}),
    "a row out of the table": (
        {"embedding": SCALED},
        {"encoder": {"embedding": {"end_of_image": 49}}},
        {IMAGE: (f"row 49 times {32**0.5:g}", TABLE)},
    ),
    "a row out of a table that is not scaled": (
        {},
        {"encoder": {"embedding": {"end_of_image": 7}}},
        {IMAGE: ("row 7 times 1", TABLE)},
    ),
    "a row that the table has not": (
        {},
        {"encoder": {"vocabulary": 60, "embedding": {"end_of_image": 50}}},
        {IMAGE: (FRESH, None), TABLE: ("first 50 rows", TABLE)},
    ),
    "a row that the source has": ({"embedding": SCALED | {"end_of_image": 5}}, {}, {}),
    "a block of another kind": (
        {},
        {"encoder": {"layer": {"branches": {"feed_forward": {"name": "gated"}}}}},
        in_layers(FRESH, *(f"feed_forward.block.{name}_proj" for name in ("gate", "up", "down"))),
    ),
    "a branch that the source has not": (
        {},
        {
            "encoder": {
                "layer": {
                    "order": ["self_attention", "added", "feed_forward"],
                    "branches": {"added": {"name": "mlp", "hidden": 8}},
                }
            }
        },
        in_layers(FRESH, "added.block.up_proj", "added.block.down_proj", "added.pre_norm"),
    ),
}


def planned(plan: pairform.Plan, part: str) -> Expected:
    """As `Expected` says it, copies of the same place left out."""
    found = {}
    for name, row in rows(plan).items():
        if name.startswith(f"{part}."):
            place = name.removeprefix(f"{part}.")
            origin = row.source.tensor.removeprefix("decoder.") if row.source else None
            summary = FRESH if row.kind == FRESH else row.operation.summary
            if (summary, origin) != ("copy", place):
                found[place] = (summary, origin)
    return found


@pytest.mark.parametrize("case", CASES)
def test_each_tensor_of_a_stack_is_made_as_is_said(case: str, tmp_path: Path) -> None:
    changes, patch, expected = CASES[case]
    embedding = {"embedding": changes.get("embedding", {"name": "token"})}
    branches = {name: value for name, value in changes.items() if name != "embedding"}
    source = saved(tmp_path / "source", alone(stack(2, **branches) | embedding))
    assert planned(pairform.plan(encoder=source, decoder=source, patch=patch), "encoder") == expected


def test_kept_layers_are_made_of_those_of_their_numbers(tmp_path: Path) -> None:
    source = saved(tmp_path / "source", alone(stack(4)))
    plan = pairform.plan(encoder=source, decoder=source, encoder_layers="1,3")
    for name, row in rows(plan).items():
        if name.startswith("encoder.layers."):
            _, _, number, rest = name.split(".", 3)
            assert row.source.tensor == f"decoder.layers.{(1, 3)[int(number)]}.{rest}"


def test_heads_of_another_width_or_of_no_whole_number_are_refused(tmp_path: Path) -> None:
    """Queries of two wide heads have the shape of four narrow ones', keys have not."""
    source = saved(tmp_path / "source", alone(stack(1)))
    name = "encoder.layers.0.self_attention.block.k_proj.weight"
    patch = of_attention(heads=2, kv_heads=2, head_dim=16)
    refused(lambda: pairform.plan(encoder=source, decoder=source, patch=patch), name, "[32, 32]", "[16, 32]")
    many = attention(mask={"causal": True}, heads=12, kv_heads=4)
    other = saved(tmp_path / "other", alone(stack(1, branches={"self_attention": many})))
    refused(lambda: pairform.plan(encoder=other, decoder=other, patch=of_attention(kv_heads=6)), name, "[48, 32]", "[32, 32]")


RECUT: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "grouped": ({}, {"heads": 2, "kv_heads": 1, "head_dim": 16}),
    "by default": (NO_WIDTH, {"heads": 2, "kv_heads": 1, "head_dim": None}),
    "retention": (
        {"name": "retention", "kv_heads": None, "value_dim": 4},
        {"heads": 2, "head_dim": 16, "value_dim": 8},
    ),
    "latent": (
        {"name": "latent_attention", "kv_heads": None, "latent": 12, "rope_dim": 4},
        {"head_dim": 6, "latent": 10, "rope_dim": 6, "value_dim": 10},
    ),
}
"""Attention of four heads, and a patch that cuts tensors of the same shapes into other heads."""


@pytest.mark.parametrize("kind", RECUT)
def test_tensors_of_equal_shapes_that_are_cut_into_other_heads_are_not_copied(kind: str, tmp_path: Path) -> None:
    """`convert` refuses such a pair, as it does where the shapes show it; `carry` draws them and keeps all others."""
    changes, new = RECUT[kind]
    own = {field: value for field, value in (attention(mask={"causal": True}) | changes).items() if value is not None}
    source = saved(tmp_path / "source", alone(stack(1, branches={"self_attention": own})))
    patch = {"decoder": {"layer": {"branches": {"self_attention": new}}}}
    name = "decoder.layers.0.self_attention.block.q_proj.weight"
    refused(lambda: pairform.plan(decoder=source, spec=source, patch=patch), name, "head_dim")
    _, plan = pairform.carry(source, patch=patch)
    drawn = {row.target for row in plan.targets if row.kind == FRESH}
    assert name in drawn
    assert all(".self_attention.block." in target for target in drawn)


def test_a_stack_of_another_width_or_depth_is_refused_in_words(tmp_path: Path) -> None:
    source = saved(tmp_path / "source", alone(stack(2)))
    for part in ("encoder", "decoder"):
        wide, deep = {part: {"width": 40}}, {part: {"depth": 3}}
        refused(lambda wide=wide: pairform.plan(encoder=source, decoder=source, patch=wide), f"{part}.width", "32, as in")  # type: ignore[misc]
        refused(lambda deep=deep: pairform.plan(encoder=source, decoder=source, patch=deep), "3 layers", f"{part}_layers")  # type: ignore[misc]


def head_row(source: Path, patch: dict[str, Any]) -> Any:
    """That of the head's only tensor."""
    (row,) = [
        row for name, row in rows(pairform.plan(encoder=source, decoder=source, patch=patch)).items() if name[:4] == "head"
    ]
    return row


@pytest.mark.parametrize(
    ("head", "patch", "summary", "origin"),
    [
        ({"name": "lm", "tie": None}, {}, "copy", "head.weight"),
        ({"name": "lm", "tie": "decoder"}, {"head": {"tie": None}}, "copy", "decoder.embedding.weight"),
        (
            {"name": "lm", "tie": "decoder"},
            {"head": {"tie": None}, "vocabulary": 60},
            "first 50 rows",
            "decoder.embedding.weight",
        ),
        ({"name": "lm", "tie": None}, {"vocabulary": 40}, "first 40 rows", "head.weight"),
    ],
)
def test_a_head_is_the_sources_own_or_its_table(
    head: dict[str, Any], patch: dict[str, Any], summary: str, origin: str, tmp_path: Path
) -> None:
    row = head_row(saved(tmp_path / "source", alone(stack(1)) | {"head": head}), patch)
    assert (row.operation.summary, str(row.source)) == (summary, f"decoder: {origin}")


def test_a_head_of_another_kind_is_drawn_and_one_of_more_labels_keeps_its_rows(tmp_path: Path) -> None:
    labelled = {"name": "token_classification", "labels": 3, "bias": False}
    document = alone(stack(1, causal=False)) | {"assembly": "encoder_only", "head": labelled}
    document["encoder"] = document.pop("decoder")
    source = saved(tmp_path / "source", document)
    for labels, summary in ((3, "copy"), (5, "first 3 rows"), (2, "first 2 rows")):
        plan = pairform.plan(encoder=source, spec=document | {"head": labelled | {"labels": labels}})
        assert rows(plan)["head.proj.weight"].operation.summary == summary
    written = saved(tmp_path / "written", alone(stack(1)) | {"head": {"name": "lm", "tie": None}})
    plan = pairform.plan(encoder=written, spec=document)
    assert rows(plan)["head.proj.weight"].kind == FRESH


def test_a_table_of_another_width_is_not_taken_for_a_head(tmp_path: Path) -> None:
    torch.manual_seed(0)
    factorised = {"name": "factorised", "rank": 16}
    source = saved(
        tmp_path / "source", alone(stack(1) | {"embedding": factorised}) | {"head": {"name": "lm", "tie": "decoder"}}
    )
    assert head_row(source, {"head": {"tie": None}}).kind == FRESH
