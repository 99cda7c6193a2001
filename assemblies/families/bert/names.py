"""How the tensors of BERT and RoBERTa are named in transformers' files."""

from collections.abc import Iterator
from functools import cache

from pairform.assemblies.families.bert.kinds import BERT, Kind
from pairform.assemblies.families.family import NameTable, Row
from pairform.assemblies.specs.model import ModelSpec

EMBEDDINGS = {"word_embeddings": "embedding", "position_embeddings": "position", "token_type_embeddings": "token_types"}
BRANCHES = {"attention": "self_attention", "crossattention": "cross_attention"}
PROJECTIONS = {"self.query": "q_proj", "self.key": "k_proj", "self.value": "v_proj", "output.dense": "o_proj"}
BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")
"""Constants in files before 2024."""


def stack_rows(theirs: str, ours: str) -> tuple[Row, ...]:
    """The rows of an encoder or decoder.

    theirs: the prefix of the names in files.
    ours:   the stack's name.
    """
    layer, own = theirs + "encoder.layer.{layer}.", ours + ".layers.{layer}."
    norms = {theirs + "embeddings.LayerNorm": ours + ".embedding_norm"}
    norms |= {f"{layer}{name}.output.LayerNorm": f"{own}{branch}.post_norm" for name, branch in BRANCHES.items()}
    norms[layer + "output.LayerNorm"] = own + "feed_forward.post_norm"
    return (
        *(Row(f"{theirs}embeddings.{name}.weight", f"{ours}.{table}.weight") for name, table in EMBEDDINGS.items()),
        *(
            Row(f"{layer}{name}.{projection}.{{tensor}}", f"{own}{branch}.block.{mine}.{{tensor}}")
            for name, branch in BRANCHES.items()
            for projection, mine in PROJECTIONS.items()
        ),
        Row(layer + "intermediate.dense.{tensor}", own + "feed_forward.block.up_proj.{tensor}"),
        Row(layer + "output.dense.{tensor}", own + "feed_forward.block.down_proj.{tensor}"),
        *(row for name, norm in norms.items() for row in norm_rows(name, norm)),
    )


def norm_rows(theirs: str, ours: str) -> Iterator[Row]:
    """The rows of a norm, whose tensors have other names in files of 2018."""
    for tensor, old in (("weight", "gamma"), ("bias", "beta")):
        yield from (Row(f"{theirs}.{name}", f"{ours}.{tensor}") for name in (tensor, old))


def lm_rows(kind: Kind, theirs: str, *, tied: bool) -> tuple[Row, ...]:
    """The rows of a language model's head; the bias has two names, of which transformers reads one.

    theirs: the prefix of the names in files.
    """
    head = theirs + ("cls.predictions." if kind is BERT else "lm_head.")
    dense, norm = ("transform.dense", "transform.LayerNorm") if kind is BERT else ("dense", "layer_norm")
    return (
        Row(f"{head}{dense}.{{tensor}}", "head.transform.dense.{tensor}"),
        *norm_rows(head + norm, "head.transform.norm"),
        Row(head + "decoder.weight", "head.weight"),
        Row(head + ("bias" if tied else "decoder.bias"), "head.bias"),
    )


def lm_doubles(kind: Kind, theirs: str, *, tied: bool) -> dict[str, str]:
    """The other name of the bias, and the one that is read."""
    head = theirs + ("cls.predictions." if kind is BERT else "lm_head.")
    return {head + "decoder.bias": head + "bias"} if tied else {head + "bias": head + "decoder.bias"}


@cache
def table(kind: Kind, head: str, tied: bool) -> NameTable:
    """The names of the tensors of an encoder with the head `head`."""
    base = "" if head in ("none", "sentence_embedding") else kind.prefix
    unread = [base + buffer for buffer in BUFFERS]
    rows = stack_rows(base, "encoder")
    spares: tuple[Row, ...] = ()
    pooler = Row(base + "pooler.dense.{tensor}", "head.transform.dense.{tensor}")
    if head == "sentence_embedding":
        rows += (pooler,)
    elif head == "sequence_classification" and kind is BERT:
        rows += (pooler, Row("classifier.{tensor}", "head.proj.{tensor}"))
    elif head == "sequence_classification":
        rows += (
            Row("classifier.dense.{tensor}", "head.transform.dense.{tensor}"),
            Row("classifier.out_proj.{tensor}", "head.proj.{tensor}"),
        )
    elif head == "masked_lm":
        rows += lm_rows(kind, "", tied=tied)
        double = lm_doubles(kind, "", tied=tied)
        spares, unread = tuple(Row(name, "head.bias") for name in double), [*unread, *double, "cls.seq_relationship."]
    elif head in ("token_classification", "span"):
        name = "qa_outputs" if head == "span" else "classifier"
        rows += (Row(name + ".{tensor}", "head.proj.{tensor}"),)
    if pooler not in rows:
        unread.append(base + "pooler.")
    spellings: tuple[tuple[str, str], ...] = ()
    if not base:  # files of a base model may have the prefix and the head of another class
        spellings = ((kind.prefix, ""),)
        unread += ["cls.", "lm_head."]
    return NameTable(rows, spellings=spellings, unread=tuple(unread), spares=spares)


def table_of(kind: Kind, spec: ModelSpec) -> NameTable:
    return table(kind, spec.head.name, spec.head_tie is not None)
