"""Costs of a spec, by part, without allocating it: parameters, FLOPs and cache bytes."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pairform.assemblies.analysis.flops import count_flops
from pairform.assemblies.analysis.parameter_tree import Part, Tree
from pairform.assemblies.checkpoints.reading.load_spec import Ref, load_spec
from pairform.assemblies.modeling.build import skeleton
from pairform.assemblies.modeling.model import Model
from pairform.assemblies.specs.layer import LayerSpec
from pairform.assemblies.specs.model import ModelSpec, StackSpec
from pairform.blocks.attention.cross_attention import CrossAttention
from pairform.blocks.cache import Cache
from pairform.blocks.spec_fields import PictureEmbeddingSpec
from pairform.registry import InputError, Problem
from pairform.registry.html import Table, fragment

__all__ = ["Inspection", "Part", "inspect"]


@dataclass(frozen=True, repr=False)
class Inspection:
    """Costs of one model.

    Attributes:
        parameters: by purpose. Tied tensors count once; encoder and decoder are without embeddings and vision.
        flops: of one forward pass over `source_length` and `target_length` tokens, two for each multiply-add of a matrix
            product.
        cache_bytes: of the decoder's keys and values after that pass, of its own tokens and of the encoder's output.
        tree: parameters and FLOPs of every part.
    """

    parameters: dict[str, int]
    flops: dict[str, int]
    cache_bytes: dict[str, int]
    batch: int
    source_length: int
    target_length: int
    pictures: int
    dtype: str
    tree: Part

    def __repr__(self) -> str:
        return f"<Inspection of {self.parameters['total']:,} parameters; the whole is in .document()>"

    def __str__(self) -> str:
        """The parts of the model, as on the command line."""
        rows = [(name, f"{parameters:,}", f"{share:.1f} %", f"{gflops:,.1f}") for name, parameters, share, gflops in self.rows]
        lines = [("part", "parameters", "share", "GFLOPs"), *rows]
        first, *others = (max(map(len, column)) for column in zip(*lines, strict=True))
        aligned = [[name.ljust(first), *map(str.rjust, numbers, others)] for name, *numbers in lines]
        return "\n".join([self.title, *map("  ".join, aligned)])

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        counted, cached = (
            [(name, number) for name, number in numbers.items() if number] for numbers in (self.parameters, self.cache_bytes)
        )
        return fragment(
            self.title,
            Table(self.rows, ("part", "parameters", "share in %", "GFLOPs")),
            Table(counted, ("purpose", "parameters")),
            Table(cached, (f"cache ({self.dtype})", "bytes")),
        )

    @property
    def title(self) -> str:
        """The sizes of the batch."""
        pictures = f", pictures {self.pictures}" if self.pictures else ""
        return f"batch {self.batch}, source {self.source_length}, target {self.target_length}{pictures}"

    @property
    def rows(self) -> list[tuple[str, int, float, float]]:
        """Each part, indented by its depth in the model: parameters, their share in percent, and GFLOPs."""
        return list(self.tree.rows(self.parameters["total"]))

    def document(self) -> dict[str, Any]:
        """Plain data, as `pairform inspect --json` prints it."""
        return vars(self) | {"tree": self.tree.document(self.parameters["total"])}


def inspect(
    spec: Ref,
    *,
    batch: int = 1,
    source_length: int = 512,
    target_length: int = 128,
    pictures: int = 0,
    dtype: torch.dtype = torch.bfloat16,
    revision: str | None = None,
) -> Inspection:
    """Compute the parameters, FLOPs and cache bytes of a spec on the meta device.

    Args:
        spec: as for `load_spec`.
        batch: rows of the batch.
        source_length: tokens that an encoder reads.
        target_length: tokens that a decoder reads.
        pictures: images in the batch. Their tokens count among those of the text.
        dtype: of the weights and the cache.
        revision: as for `load_spec`.

    Returns:
        The totals, and a tree of the model's parts.

    Raises:
        SpecError: the spec is invalid.
        InputError: a length is below 1, or the tokens of all pictures do not fit.
    """
    read = load_spec(spec, revision=revision)
    check_request(read, batch, source_length, target_length, pictures)
    spec, counts = one_of_each(read)
    model = skeleton(spec, dtype)
    model.source_layers = source_layers(read)  # the bridge is crossed once for each of them
    flops, cache = run(model, batch, source_length, target_length, pictures)
    tree = Tree(model, counts, flops)
    return Inspection(
        tree.parameters(),
        {part.name: part.flops for part in tree.root.parts} | {"total": tree.root.flops},
        cache_bytes(cache, counts.get("decoder", [])),
        batch,
        source_length,
        target_length,
        pictures,
        str(dtype).removeprefix("torch."),
        tree.root,
    )


def check_request(spec: ModelSpec, batch: int, source_length: int, target_length: int, pictures: int) -> None:
    """Check the sizes of the batch, and that the tokens of all pictures fit into it."""
    for name, value in {"batch": batch, "source_length": source_length, "target_length": target_length}.items():
        if value < 1:
            raise InputError(Problem(name, str(value), "1 or more"))
    if pictures < 0:
        raise InputError(Problem("pictures", str(pictures), "0 or more"))
    if not pictures:
        return
    name, stack = next(iter(spec.stacks.items()))
    if stack.vision is None:
        raise InputError(Problem("pictures", f"pictures for a spec whose {name} has no vision", "0, or a spec with vision"))
    each = stack.vision.tokens
    length = source_length if name == "encoder" else target_length
    if pictures * each > batch * length:
        found = f"{pictures} pictures of {each} tokens in {batch} x {length} tokens"
        raise InputError(Problem("pictures", found, f"at most {batch * length // each}", "Or make the text longer."))


def one_of_each(spec: ModelSpec) -> tuple[ModelSpec, dict[str, list[int]]]:
    """The spec with one layer of each kind in every stack, and the number of layers of each kind by the stack's path."""
    counts: dict[str, list[int]] = {}

    def kinds(path: str, stack: StackSpec) -> tuple[LayerSpec, ...]:
        # equal layers cost the same: one of each kind runs, and its costs are multiplied
        found = Counter(stack.layers)
        counts[path] = list(found.values())
        return tuple(found)

    return with_layers(spec, kinds), counts


def with_layers(spec: ModelSpec, chosen: Callable[[str, StackSpec], tuple[LayerSpec, ...]]) -> ModelSpec:
    """The spec with the layers that `chosen` returns for the path of each stack and the stack."""

    def cut(path: str, stack: StackSpec) -> StackSpec:
        # in place of the cached property of this name, which the template and its patches determine otherwise
        changed: dict[str, Any] = {"layers": chosen(path, stack)}
        if stack.vision is not None:
            changed["vision"] = stack.vision.model_copy(update={"tower": cut(f"{path}.vision.tower", stack.vision.tower)})
        return stack.model_copy(update=changed)

    return spec.model_copy(update={name: cut(name, stack) for name, stack in spec.stacks.items()})


def source_layers(spec: ModelSpec) -> tuple[int, ...]:
    """The numbers of the encoder's layers that the decoder reads in addition to the output."""
    if spec.decoder is None:
        return ()
    sizes = spec.sizes("decoder")
    found = {
        branch.reads(replace(sizes, depth=spec.decoder.depth, layer=index))
        for index, layer in enumerate(spec.decoder.layers)
        for branch in layer.branches.values()
        if isinstance(branch, CrossAttention.Spec)
    }
    return tuple(sorted(layer for layer in found if layer is not None))


def run(model: Model, batch: int, source_length: int, target_length: int, pictures: int) -> tuple[Counter[str], Cache]:
    """FLOPs by module path, with "" for the whole model, and the decoder's cache, of one forward pass."""
    source, target = (torch.zeros(batch, length, dtype=torch.long, device="meta") for length in (source_length, target_length))
    cache = Cache()
    inputs: dict[str, Tensor | Cache] = {"input_ids": target if model.encoder is None else source}
    if model.decoder is not None:
        inputs["cache"] = cache
        if model.encoder is not None:
            inputs["decoder_input_ids"] = target
    if pictures:
        inputs["pixel_values"] = pixels(next(iter(model.spec.stacks.values())), pictures)
    with torch.no_grad(), count_flops(model) as flops:
        model(**inputs)
    return flops, cache


def pixels(stack: StackSpec, pictures: int) -> Tensor:
    """Empty pictures of the size that the stack's tower reads, `[pictures, channels, height, width]`."""
    assert stack.vision is not None, "checked with the request"
    embedding = PictureEmbeddingSpec.of(stack.vision.tower.embedding)
    assert embedding.image_size is not None, "checked by the spec"
    return torch.empty(pictures, embedding.channels, embedding.image_size, embedding.image_size, device="meta")


def cache_bytes(cache: Cache, counts: list[int]) -> dict[str, int]:
    own = sum(part.bytes * counts[layer] for held in (cache.own, cache.states) for (layer, _), part in held.items())
    source = sum(part.bytes * counts[layer] for (layer, _), part in cache.source.items())
    return {"self": own, "source": source, "total": own + source}
