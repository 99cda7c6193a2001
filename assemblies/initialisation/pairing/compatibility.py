"""Whether a tensor means the same in a new model as in its source: its blocks are of one kind, and set up alike."""

from pairform.assemblies.specs.model import LayerSpec
from pairform.blocks.attention.mask_spec import AttentionFields
from pairform.registry import BlockSpec

OWN = "self_attention"
CROSS = "cross_attention"
MERGED = "merged_attention"
KIN = {MERGED: OWN}
"""Blocks whose weights mean the same as another block's."""


def same_meaning(layer: LayerSpec, origin: LayerSpec, branch: str, donor: str, rest: str) -> bool:
    """Whether the tensor `rest` of the branch `donor` of a source layer means the same in `branch` of a new one."""
    new, old = layer.branches[branch], origin.branches[donor]
    owner = rest.split(".")[1]
    if not rest.startswith("block."):
        return layer.residual.name == origin.residual.name if rest.startswith("residual.") else alike(layer.norm, origin.norm)
    if branch == donor and kin(new) != kin(old):
        return False
    ours, theirs = AttentionFields.of(new), AttentionFields.of(old)
    if owner in ("q_norm", "k_norm"):
        return alike(ours.qk_norm, theirs.qk_norm)
    return owner != "position" or alike(ours.position, theirs.position)


def kin(spec: BlockSpec) -> str:
    """One name for all blocks whose weights mean the same."""
    return KIN.get(spec.name, spec.name)


def alike(norm: BlockSpec | None, other: BlockSpec | None) -> bool:
    """Whether a norm's or a position's weights mean the same in the other: eps may differ, and whose they are; all else not."""
    if norm is None or other is None:
        return norm is other
    free = {"eps": None, "shared": None}
    return {**norm.document(), **free} == {**other.document(), **free}


def own_attention(layer: LayerSpec) -> str | None:
    """The branch of a layer that is self-attention, or merged attention: the one of that name, or the only one of that kind."""
    found = [name for name, branch in layer.branches.items() if kin(branch) == OWN]
    return OWN if OWN in found else found[0] if len(found) == 1 else None
