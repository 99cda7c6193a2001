"""What follows the stack in a folder of sentence-transformers: pooling, dense layers, normalisation."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pairform.assemblies.checkpoints.reading.sentence_modules import ACTIVATIONS, LEGACY_POOLING, POOLING
from pairform.assemblies.specs.model import ModelSpec
from pairform.blocks.heads.pooled_heads import SentenceEmbeddingSpec
from pairform.registry import Problem, SpecError


class Module(NamedTuple):
    """One module of a folder: its class, its configuration, and its tensors, by our names."""

    kind: str
    config: dict[str, Any]
    tensors: Mapping[str, str] = {}


def embedding_head(spec: ModelSpec) -> SentenceEmbeddingSpec:
    """The head of a model that embeds texts; a `SpecError` for one that does not."""
    if not isinstance(spec.head, SentenceEmbeddingSpec):
        remedy = 'carry with --set head=\'{"name": "sentence_embedding"}\' makes such a model of an encoder.'
        raise SpecError(Problem("head.name", repr(spec.head.name), "sentence_embedding or contrastive", remedy))
    return spec.head


def dimensions(spec: ModelSpec) -> int:
    """The length of a model's embeddings."""
    head = embedding_head(spec)
    return head.projection or (spec.last.width if head.transform is None else head.transform.out(spec.head_sizes))


def modules_of(spec: ModelSpec, *, projected: bool) -> Iterator[Module]:
    """The modules that compute the head.

    projected: whether the stack's class projects each token itself.
    """
    head, width = embedding_head(spec), dimensions(spec) if projected else spec.last.width
    yield pooling(head.pooling, width)
    if not projected:
        yield from dense_layers(head, width)
    if head.normalise:
        yield Module("Normalize", {})


def pooling(mode: str, width: int) -> Module:
    theirs = POOLING[mode]
    legacy = {field: name == theirs for name, field in LEGACY_POOLING.items()}
    return Module("Pooling", {"word_embedding_dimension": width, **legacy, "include_prompt": True})


def dense_layers(head: SentenceEmbeddingSpec, width: int) -> Iterator[Module]:
    transform = head.transform
    if transform is not None:
        if transform.norm is not None:
            raise SpecError(Problem("head.transform.norm", repr(transform.norm.name), "none: no module computes it"))
        if transform.activation not in ACTIVATIONS:
            expected = f"one that sentence-transformers makes: {', '.join(ACTIVATIONS)}"
            raise SpecError(Problem("head.transform.activation", repr(transform.activation), expected))
        tensors = {"head.transform.dense.weight": "linear.weight"}
        tensors |= {"head.transform.dense.bias": "linear.bias"} if transform.bias else {}
        out = transform.width or width
        yield dense(width, out, ACTIVATIONS[transform.activation], tensors)
        width = out
    if head.projection is not None:
        yield dense(width, head.projection, ACTIVATIONS["identity"], {"head.proj.weight": "linear.weight"})


def dense(width: int, out: int, activation: str, tensors: Mapping[str, str]) -> Module:
    bias = "linear.bias" in tensors.values()
    return Module(
        "Dense", {"in_features": width, "out_features": out, "bias": bias, "activation_function": activation}, tensors
    )
