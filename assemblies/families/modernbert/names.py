"""How the tensors of ModernBERT and of its decoder are named in transformers' files."""

from pairform.assemblies.families.family import Fused, NameTable, Row

LAYER = "model.layers.{layer}."


def stack_rows(ours: str, *, fused: bool) -> tuple[Row | Fused, ...]:
    """The rows of a stack.

    ours:  the stack's name.
    fused: whether one tensor holds queries, keys and values, as in the encoder.
    """
    own = ours + ".layers.{layer}."
    attention, feed_forward = own + "self_attention.block.", own + "feed_forward.block."
    sides = {side: f"{attention}{side}_proj.{{tensor}}" for side in ("q", "k", "v")}
    joined = (Fused(LAYER + "attn.Wqkv.{tensor}", tuple(sides.values())),)
    separate = tuple(Row(f"{LAYER}attn.{side}_proj.{{tensor}}", name) for side, name in sides.items())
    return (
        Row("model.embeddings.tok_embeddings.weight", ours + ".embedding.weight"),
        Row("model.embeddings.norm.{tensor}", ours + ".embedding_norm.{tensor}"),
        *(joined if fused else separate),
        Row(LAYER + "attn.Wo.{tensor}", attention + "o_proj.{tensor}"),
        Fused(LAYER + "mlp.Wi.{tensor}", tuple(f"{feed_forward}{side}_proj.{{tensor}}" for side in ("gate", "up"))),
        Row(LAYER + "mlp.Wo.{tensor}", feed_forward + "down_proj.{tensor}"),
        Row(LAYER + "attn_norm.{tensor}", own + "self_attention.pre_norm.{tensor}"),
        Row(LAYER + "mlp_norm.{tensor}", own + "feed_forward.pre_norm.{tensor}"),
        Row("model.final_norm.{tensor}", ours + ".norm.{tensor}"),
    )


def head_rows(transform: str) -> tuple[Row, ...]:
    """The rows of heads. transform: the name of their dense layer and norm."""
    return (
        Row(transform + ".{part}.{tensor}", "head.transform.{part}.{tensor}"),
        Row("decoder.{tensor}", "head.{tensor}"),
        Row("classifier.{tensor}", "head.proj.{tensor}"),
    )


ENCODER = NameTable((*stack_rows("encoder", fused=True), *head_rows("head")))
DECODER = NameTable((*stack_rows("decoder", fused=False), *head_rows("lm_head"), *head_rows("head")[:1]))
CLASSIFIER = NameTable((*stack_rows("decoder", fused=False), *head_rows("head")))
"""The decoder's language model and its classifier have two names for one part."""
