"""What layers of a stack read of earlier ones: keys and values, and tables of relative positions."""

from collections.abc import Iterator, Sequence
from typing import Any

from pairform.assemblies.specs.layer import LayerSpec
from pairform.blocks.attention.mask_spec import AttentionFields
from pairform.blocks.positions.base import ScoreBiasSpec
from pairform.blocks.spec_fields import TableFields
from pairform.registry import BlockSpec, Problem

Place = tuple[int, str]
"""Layer number and branch name."""


def key_places(layers: Sequence[LayerSpec], width: int) -> dict[Place, Place | None]:
    """For each branch that shares keys, the branch whose keys and values it attends to; None if no earlier one fits."""
    found: dict[Place, Place | None] = {}
    nearest: dict[tuple[Any, ...], Place] = {}
    known: dict[int, list[tuple[str, bool, tuple[Any, ...]]]] = {}  # by layer: equal ones are one object
    for index, layer in enumerate(layers):
        if id(layer) not in known:
            branches = ((name, layer.branches[name]) for name in layer.present)
            known[id(layer)] = [(name, shares_keys(block), keys_of(name, block, width)) for name, block in branches]
        for name, shares, kind in known[id(layer)]:
            if shares:
                found[index, name] = nearest.get(kind)
            else:
                nearest[kind] = index, name
    return found


def shares_keys(block: BlockSpec) -> bool:
    return AttentionFields.of(block).share_keys


def keys_of(name: str, block: BlockSpec, width: int) -> tuple[Any, ...]:
    """Whatever must agree in two branches of which one attends to the keys and values of the other."""
    fields = AttentionFields.of(block)
    # a score bias leaves the keys as they are
    position = None if isinstance(fields.position, ScoreBiasSpec) else fields.position
    head_dim = fields.head_dim or width // fields.heads
    return name, block.name, fields.mask, position, fields.kv_heads or fields.heads, head_dim


def check_shared_keys(layers: Sequence[LayerSpec], width: int) -> Iterator[Problem]:
    """A branch that shares keys finds an earlier layer that has some."""
    for (index, name), place in key_places(layers, width).items():
        if place is None:
            same = "the same block, mask, position, kv_heads and head_dim"
            expected = f"an earlier layer whose {name} has keys of its own and {same}"
            remedy = "Keep or add such a layer, or set share_keys to false in this one."
            yield Problem(f"layers[{index}].branches.{name}.share_keys", "true", expected, remedy)
            return


def check_shared_tables(layers: Sequence[LayerSpec]) -> Iterator[Problem]:
    """A position that reads an earlier layer's table finds one that fits."""
    tables: dict[tuple[str, str], tuple[int, int]] = {}
    for index, layer in enumerate(layers):
        for name in layer.present:
            branch = AttentionFields.of(layer.branches[name])
            position = TableFields.of(branch.position)
            where, kind = f"layers[{index}].branches.{name}.position", (name, position.name)
            table = (position.buckets, branch.heads)
            if position.buckets and not position.shared:
                tables[kind] = table
            elif position.buckets and kind not in tables:
                expected = f"an earlier layer whose {name} has a {position.name} of its own"
                remedy = "Set shared to false in the first of these layers, with an override."
                yield Problem(f"{where}.shared", "true", expected, remedy)
                return
            elif position.buckets and tables[kind] != table:
                found, expected = (f"{buckets} buckets for {heads} heads" for buckets, heads in (table, tables[kind]))
                yield Problem(where, found, f"the shared table's: {expected}")
