"""How T5's and mT5's tensors are named in transformers' files."""

from pairform.assemblies.families.family import NameTable, Row
from pairform.assemblies.specs.model import ModelSpec

OWN, CROSS = "{part}.block.{layer}.layer.0.", "decoder.block.{layer}.layer.1."
OURS = "{part}.layers.{layer}."


def rows(up: str) -> tuple[Row, ...]:
    """`up` is their name for the projection to the inner width: another one beside a gate."""
    feed_forward = (
        Row(f"{part}.block.{{layer}}.layer.{place}.{theirs}.weight", f"{part}.layers.{{layer}}.feed_forward.{ours}.weight")
        for part, place in (("encoder", 1), ("decoder", 2))
        for theirs, ours in (
            ("layer_norm", "pre_norm"),
            ("DenseReluDense.wi_0", "block.gate_proj"),
            (f"DenseReluDense.{up}", "block.up_proj"),
            ("DenseReluDense.wo", "block.down_proj"),
        )
    )
    return (
        Row("shared.weight", "encoder.embedding.weight"),
        Row("decoder.embed_tokens.weight", "decoder.embedding.weight"),
        Row("{part}.final_layer_norm.weight", "{part}.norm.weight"),
        Row(OWN + "layer_norm.weight", OURS + "self_attention.pre_norm.weight"),
        Row(OWN + "SelfAttention.{projection}.weight", OURS + "self_attention.block.{projection}_proj.weight"),
        Row(OWN + "SelfAttention.relative_attention_bias.weight", OURS + "self_attention.block.position.table.weight"),
        Row(CROSS + "layer_norm.weight", "decoder.layers.{layer}.cross_attention.pre_norm.weight"),
        Row(
            CROSS + "EncDecAttention.{projection}.weight",
            "decoder.layers.{layer}.cross_attention.block.{projection}_proj.weight",
        ),
        *feed_forward,
        Row("lm_head.weight", "head.weight"),
    )


PLAIN, GATED = NameTable(rows("wi")), NameTable(rows("wi_1"))
NAMES = NameTable(
    (*rows("wi"), *rows("wi_1")),
    unread=(
        "encoder.embed_tokens.weight",
        "decoder.block.{layer}.layer.1.EncDecAttention.relative_attention_bias.weight",
    ),
    spares=tuple(Row(f"{part}.embed_tokens.weight", "encoder.embedding.weight") for part in ("encoder", "decoder")),
)
"""Older files hold the one embedding three times, and a table of positions that cross-attention does not use; some (MADLAD-400)
hold it under a stack's name alone."""
COPIES = {"encoder.embed_tokens.weight": "shared.weight"}


def written(spec: ModelSpec) -> NameTable:
    """The names of a spec's tensors."""
    inner = next(iter(spec.stacks.values())).layers[0].branches.get("feed_forward")
    return GATED if inner is not None and inner.name == "gated" else PLAIN
