"""Small models, and every place in them where a block of a kind may stand: what the tests of all registered blocks run on."""

import copy
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor

import pairform

Document = dict[str, Any]
BLOCKS = [(kind, name) for kind, registry in pairform.blocks().items() for name in registry]
VOCABULARY, WIDTH, IMAGE, SIDE, TOKENS = 23, 32, 22, 16, 4
"""The image token, a picture's side in pixels, and how many tokens it becomes."""
NORM = {"name": "rmsnorm"}


def attention(name: str = "self_attention", *, causal: bool) -> Document:
    mask = {} if name == "cross_attention" else {"mask": {"causal": causal}}
    return {"name": name, "heads": 4, "kv_heads": 2, **mask}


def stack(*branches: str, causal: bool) -> Document:
    known = {
        "self_attention": attention(causal=causal),
        "cross_attention": attention("cross_attention", causal=causal),
        "feed_forward": {"name": "mlp", "hidden": 24},
    }
    layer = {"norm": NORM, "order": list(branches), "branches": {name: known[name] for name in branches}}
    return {"width": WIDTH, "depth": 2, "embedding": {"name": "token"}, "layer": layer}


def model(assembly: str) -> Document:
    """A small model of this assembly."""
    middle = ["cross_attention"] if assembly == "encoder_decoder" else []
    stacks = {
        "encoder": stack("self_attention", "feed_forward", causal=False),
        "decoder": stack("self_attention", *middle, "feed_forward", causal=True),
    }
    return {
        "assembly": assembly,
        "vocabulary": VOCABULARY,
        "tokens": {"pad": 0, "eos": 1, "bos": 2},
        **{part: stacks[part] for part in stacks if assembly in ("encoder_decoder", f"{part}_only")},
        "head": {"name": "none" if assembly == "encoder_only" else "lm"},
        "initializer_range": 0.3,
    }


def seeing() -> Document:
    """A decoder that reads pictures."""
    document = model("decoder_only")
    tower = stack("self_attention", "feed_forward", causal=False)
    tower["embedding"] = {"name": "patches", "image_size": SIDE, "patch_size": 4}
    projector = {"name": "average_pool", "tokens": TOKENS, "norm": NORM}
    document["decoder"]["vision"] = {"tower": tower, "projector": projector, "image_token": IMAGE, "frozen": False}
    return document


def put(document: Document, path: str, value: Any) -> Document:
    """A copy with `value` at `path`, where `a.b` is `["a"]["b"]`."""
    changed = copy.deepcopy(document)
    *outer, last = path.split(".")
    holder = changed
    for key in outer:
        holder = holder[key]
    holder[last] = value
    return changed


def everywhere(document: Document, path: str, value: Any) -> Document:
    """The same in each stack."""
    for part in ("encoder", "decoder"):
        if part in document:
            document = put(document, f"{part}.{path}", value)
    return document


def candidates(kind: str, block: Document) -> Iterator[tuple[str, Document]]:
    """Documents that have `block`, whether it fits or not, each with a name."""
    pair, alone, reader = (model(assembly) for assembly in ("encoder_decoder", "decoder_only", "encoder_only"))
    masked = "mask" in pairform.blocks(kind)[block["name"]].Spec.model_fields
    branches = "layer.branches"
    if kind in ("norm", "residual"):
        for placement in ("pre", "post", "sandwich"):
            placed = everywhere(pair, "layer.placement", placement)
            yield f"{placement} pair", everywhere(placed, f"layer.{kind}", block)
        yield "decoder", everywhere(alone, f"layer.{kind}", block)
    elif kind == "position":
        yield "pair", everywhere(pair, f"{branches}.self_attention.position", block)
        yield "decoder", everywhere(alone, f"{branches}.self_attention.position", block)
    elif kind == "absolute_position":
        yield "pair", everywhere(pair, "position", block)
    elif kind == "attention":
        causal, free = (block | ({"mask": {"causal": causal}} if masked else {}) for causal in (True, False))
        yield "pair's self_attention", put(pair, f"decoder.{branches}.self_attention", causal)
        if reads_a_source(kind, block):
            yield "pair's cross_attention", put(pair, f"decoder.{branches}.cross_attention", causal)
        yield "encoder", put(pair, f"encoder.{branches}.self_attention", free)
        yield "decoder", put(alone, f"decoder.{branches}.self_attention", causal)
    elif kind == "feed_forward":
        yield "pair", everywhere(pair, f"{branches}.feed_forward", block)
        yield "decoder", everywhere(alone, f"{branches}.feed_forward", block)
    elif kind == "embedding":
        yield "pair", everywhere(pair, "embedding", block)
        yield "tower", put(seeing(), "decoder.vision.tower.embedding", block)
    elif kind == "projector":
        yield "pictures", put(seeing(), "decoder.vision.projector", block)
        tower = put(seeing(), "decoder.vision.tower.embedding", {"name": "patches", "image_size": 224, "patch_size": 16})
        yield "pictures of 224 pixels", put(tower, "decoder.vision.projector", block)
    elif kind == "bridge":
        wider = put(pair, "encoder.width", 2 * WIDTH)
        merged = put(pair, f"decoder.{branches}", pair["decoder"]["layer"]["branches"] | {"self_attention": MERGED})
        for name, document in {"pair": pair, "unequal pair": wider, "merged pair": merged}.items():
            yield name, put(document, "bridge", block)
    elif kind == "head":
        for name, document in {"pair": pair, "decoder": alone, "encoder": reader}.items():
            yield name, put(document, "head", block)
    else:
        raise AssertionError(f"say here where a block of the new kind {kind!r} may stand")


def reads_a_source(kind: str, block: Document) -> bool:
    """Whether it is refused where there is none, and only there."""
    spec = pairform.blocks(kind)[block["name"]].Spec.read(block)
    return any(spec.check(pairform.Sizes(WIDTH))) and not any(spec.check(pairform.Sizes(WIDTH, source_width=WIDTH)))


MERGED = attention("merged_attention", causal=True)


@cache
def places(kind: str, name: str) -> dict[str, pairform.ModelSpec]:
    """The models that take the block's example. Where it does not fit, a `PairformError` says so when the spec is read."""
    found: dict[str, pairform.ModelSpec] = {}
    for place, document in candidates(kind, pairform.blocks(kind)[name].Spec.example()):
        try:
            found[place] = pairform.load_spec(document)
        except pairform.PairformError as error:
            assert all(problem.expected for problem in error.problems)
    return found


def inputs(spec: pairform.ModelSpec, *, length: int = 7) -> dict[str, Any]:
    """Two rows of tokens, the second padded on the left; what the decoder of a pair reads; pictures where they are read."""
    stack = next(iter(spec.stacks.values()))
    generator = torch.Generator().manual_seed(0)
    projector: Any = None if stack.vision is None else stack.vision.projector
    tokens = 0 if projector is None else projector.tokens
    mask = torch.ones(2, length + tokens, dtype=torch.long)
    mask[1, :2] = 0
    ids = torch.randint(3, VOCABULARY - 1, mask.shape, generator=generator) * mask
    found: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
    if spec.assembly == "encoder_decoder":
        found["decoder_input_ids"] = torch.randint(3, VOCABULARY - 1, (2, 5), generator=generator)
    if stack.vision is not None:
        ids[:, 2 : 2 + tokens] = IMAGE
        embedding: Any = stack.vision.tower.embedding
        found["pixel_values"] = torch.rand(2, embedding.channels, *2 * [embedding.image_size], generator=generator)
    return found


def labels_for(spec: Any, batch: dict[str, Any], logits: Tensor) -> Tensor:
    """What such a head learns from; of one that is not known here, a class for each token or sequence."""
    head = spec.name
    if head == "lm":
        return batch.get("decoder_input_ids", batch["input_ids"])
    if head == "span":
        return torch.tensor([[0, 2], [3, 4]])
    if head == "contrastive":
        return torch.tensor([1, 0])
    if getattr(spec, "problem", None) in ("regression", "multi_label"):
        return torch.ones_like(logits)
    return torch.arange(logits[..., 0].numel()).view(logits.shape[:-1]) % logits.shape[-1]


def answer(model: pairform.Model, batch: dict[str, Any]) -> Tensor:
    """Logits, or the last hidden states of a model without a head."""
    output = model(**batch)
    given = output.last_hidden_state if output.logits is None else output.logits
    assert given is not None
    return given


def loss_of(model: pairform.Model, batch: dict[str, Any]) -> Tensor:
    """The loss of one batch, or where the head has none the mean square of what it gives."""
    given = answer(model, batch)
    try:
        loss = model(**batch, labels=labels_for(model.spec.head, batch, given)).loss
    except pairform.PairformError as error:
        assert error.problems[0].where == "labels"
        return given.float().square().mean()
    assert loss is not None
    return loss
