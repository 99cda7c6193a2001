"""Rows of name tables that several families share."""

from collections.abc import Mapping

from pairform.assemblies.families.family import Row

HEADS = (Row("lm_head.weight", "head.weight"), Row("score.{tensor}", "head.proj.{tensor}"))
PRE_NORMS = {"input_layernorm": "self_attention.pre_norm", "post_attention_layernorm": "feed_forward.pre_norm"}
INNER_POST_NORMS = {
    "post_attention_layernorm": "self_attention.post_norm",
    "post_feedforward_layernorm": "feed_forward.post_norm",
}
SANDWICH_NORMS = {
    "input_layernorm": "self_attention.pre_norm",
    "post_attention_layernorm": "self_attention.post_norm",
    "pre_feedforward_layernorm": "feed_forward.pre_norm",
    "post_feedforward_layernorm": "feed_forward.post_norm",
}


def stack_rows(theirs: str, ours: str, norms: Mapping[str, str]) -> tuple[Row, ...]:
    """The rows of a stack.

    theirs: the prefix of the names in files.
    ours:   the stack's name, or `{part}`.
    norms:  a layer's norms by the family's names for them: one name stands for other places in Gemma than in Llama.
    """
    layer, own = theirs + "layers.{layer}.", ours + ".layers.{layer}."
    return (
        Row(theirs + "embed_tokens.weight", ours + ".embedding.weight"),
        Row(theirs + "norm.weight", ours + ".norm.weight"),
        Row(layer + "self_attn.{projection}_proj.{tensor}", own + "self_attention.block.{projection}_proj.{tensor}"),
        Row(layer + "self_attn.{side}_norm.weight", own + "self_attention.block.{side}_norm.weight"),
        Row(layer + "mlp.{projection}_proj.{tensor}", own + "feed_forward.block.{projection}_proj.{tensor}"),
        *(Row(f"{layer}{norm}.weight", f"{own}{place}.weight") for norm, place in norms.items()),
    )
