"""How the tensors of BART and its relatives are named in transformers' files."""

from pairform.assemblies.families.family import Fused, NameTable, Row
from pairform.assemblies.specs.model import ModelSpec

THEIRS, OURS = "model.{part}.layers.{layer}.", "{part}.layers.{layer}."
ATTENTION = {"self_attn": "self_attention", "encoder_attn": "cross_attention"}
SHARED = "model.shared.weight"


def rows(norm: str, *, learned: bool) -> tuple[Row | Fused, ...]:
    """norm: the place of a branch's norm. learned: there is a table of positions."""
    attention = (
        Row(f"{THEIRS}{theirs}.{projection}.{{tensor}}", f"{OURS}{ours}.block.{mine}.{{tensor}}")
        for theirs, ours in ATTENTION.items()
        for projection, mine in (("out_proj", "o_proj"), ("{projection}_proj", "{projection}_proj"))
    )
    norms = {**{f"{theirs}_layer_norm": ours for theirs, ours in ATTENTION.items()}, "final_layer_norm": "feed_forward"}
    return (
        Row("model.{part}.embed_tokens.weight", "{part}.embedding.weight"),
        *((Row("model.{part}.embed_positions.weight", "{part}.position.weight"),) if learned else ()),
        Row("model.{part}.layernorm_embedding.{tensor}", "{part}.embedding_norm.{tensor}"),
        Row("model.{part}.layer_norm.{tensor}", "{part}.norm.{tensor}"),
        *attention,
        *(Row(f"{THEIRS}{theirs}.{{tensor}}", f"{OURS}{ours}.{norm}.{{tensor}}") for theirs, ours in norms.items()),
        Row(THEIRS + "fc1.{tensor}", OURS + "feed_forward.block.up_proj.{tensor}"),
        Row(THEIRS + "fc2.{tensor}", OURS + "feed_forward.block.down_proj.{tensor}"),
        Row("lm_head.weight", "head.weight"),
        Fused("final_logits_bias", ("head.bias",), leading=True),
    )


def names(norm: str, *, learned: bool) -> NameTable:
    """Files of tied tables hold the one of `shared`, older ones all three; in others `shared` has no effect."""
    # of transformers 4: tables of sines, and versions of the format
    unread = ("model.{part}.version", "model.{part}.embed_positions.weights")
    sines = () if learned else ("model.{part}.embed_positions.weight",)
    spares = (Row(SHARED, "encoder.embedding.weight"),)
    return NameTable(rows(norm, learned=learned), unread=(SHARED, *unread, *sines), spares=spares)


def written(table: NameTable, spec: ModelSpec) -> NameTable:
    """The names of a spec's tensors."""
    return NameTable((*table.spares, *table.rows)) if spec.tie_embeddings else table
