"""The tensors of GPT-2's files: matrices are stored transposed, and queries, keys and values as one."""

from pairform.assemblies.families.family import Fused, NameTable, Row

BASE = "transformer."
"""Before all tensors but the head's; files of 2019 lack it."""
NORMS = {"ln_1": "self_attention.pre_norm", "ln_cross_attn": "cross_attention.pre_norm", "ln_2": "feed_forward.pre_norm"}


def stack_rows(theirs: str, ours: str) -> tuple[Row | Fused, ...]:
    """The rows of a decoder, with cross-attention if it has any.

    theirs: the prefix of the names in files.
    ours:   the stack's name.
    """
    layer, own = theirs + "h.{layer}.", ours + ".layers.{layer}."
    attention, cross = own + "self_attention.block.", own + "cross_attention.block."

    def matrix(name: str, *parts: str) -> Fused:
        return Fused(layer + name + ".{tensor}", tuple(part + ".{tensor}" for part in parts), transposed=True)

    return (
        Row(theirs + "wte.weight", ours + ".embedding.weight"),
        Row(theirs + "wpe.weight", ours + ".position.weight"),
        Row(theirs + "ln_f.{tensor}", ours + ".norm.{tensor}"),
        matrix("attn.c_attn", *(f"{attention}{side}_proj" for side in ("q", "k", "v"))),
        matrix("attn.c_proj", attention + "o_proj"),
        matrix("crossattention.q_attn", cross + "q_proj"),
        matrix("crossattention.c_attn", cross + "k_proj", cross + "v_proj"),
        matrix("crossattention.c_proj", cross + "o_proj"),
        matrix("mlp.c_fc", own + "feed_forward.block.up_proj"),
        matrix("mlp.c_proj", own + "feed_forward.block.down_proj"),
        *(Row(f"{layer}{norm}.{{tensor}}", f"{own}{place}.{{tensor}}") for norm, place in NORMS.items()),
    )


def table(classifier: str) -> NameTable:
    """classifier: the name of the projection of a classifier, of which transformers has two."""
    heads = (Row("lm_head.weight", "head.weight"), Row(classifier + ".{tensor}", "head.proj.{tensor}"))
    # masks, as tensors of 0 and 1, in files before 2023
    masks = tuple(f"{BASE}h.{{layer}}.attn.{name}" for name in ("bias", "masked_bias"))
    return NameTable((*stack_rows(BASE, "decoder"), *heads), unread=masks)


SEQUENCE, TOKENS = table("score"), table("classifier")
NAMES = NameTable((*SEQUENCE.rows, Row("classifier.{tensor}", "head.proj.{tensor}")), unread=SEQUENCE.unread)
