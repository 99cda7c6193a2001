"""Whether a new model can take over a source's tensor: both blocks must be of one kind, with equivalent settings."""

from pairform.assemblies.specs.model import LayerSpec
from pairform.blocks.attention.mask_spec import AttentionFields
from pairform.registry import BlockSpec

OWN = "self_attention"
CROSS = "cross_attention"
MERGED = "merged_attention"
SAME_WEIGHTS = {MERGED: OWN}
"""Blocks whose weights another block can take over, with that block."""


def transferable(layer: LayerSpec, origin: LayerSpec, branch: str, donor: str, rest: str) -> bool:
    """Whether `branch` of a new layer can take over the tensor `rest` of the branch `donor` of a source layer."""
    new, old = layer.branches[branch], origin.branches[donor]
    owner = rest.split(".")[1]
    if not rest.startswith("block."):
        if rest.startswith("residual."):
            return layer.residual.name == origin.residual.name
        return equivalent(layer.norm_of(branch), origin.norm_of(donor))
    if branch == donor and weight_kind(new) != weight_kind(old):
        return False
    if owner != "position" and not owner.endswith("_norm"):
        return True
    ours, theirs = AttentionFields.of(new), AttentionFields.of(old)
    if owner in ("q_norm", "k_norm"):
        spans = [attention.heads if attention.qk_norm_span == "width" else 1 for attention in (ours, theirs)]
        return spans[0] == spans[1] and equivalent(ours.qk_norm, theirs.qk_norm)
    if owner == "v_norm":
        return equivalent(ours.value_norm, theirs.value_norm)
    if owner.endswith("_norm"):  # of other blocks, in a field of the norm's name
        return equivalent(getattr(new, owner, None), getattr(old, owner, None))
    return equivalent(ours.position, theirs.position)


def weight_kind(spec: BlockSpec) -> str:
    """One name for all blocks with the same weights."""
    return SAME_WEIGHTS.get(spec.name, spec.name)


def equivalent(norm: BlockSpec | None, other: BlockSpec | None) -> bool:
    """Whether two norms or positions can share weights: only eps, the length of a table, and whether it is shared,
    may differ."""
    if norm is None or other is None:
        return norm is other
    free = {"eps": None, "shared": None, "length": None}
    return {**norm.document(), **free} == {**other.document(), **free}


def self_attention_branch(layer: LayerSpec) -> str | None:
    """The name of a layer's self-attention or merged attention: `self_attention`, or the only branch of that kind."""
    found = [name for name, branch in layer.branches.items() if weight_kind(branch) == OWN]
    return OWN if OWN in found else found[0] if len(found) == 1 else None
