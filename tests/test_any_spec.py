"""What holds for every spec: it builds, trains, decodes the same with a cache or padded, and survives saving."""

import tempfile
from pathlib import Path
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

import pairform

VOCABULARY = 23
SMALL = st.integers(min_value=1, max_value=3)
NORMS = st.sampled_from(
    [{"name": "rmsnorm"}, {"name": "rmsnorm", "unit_offset": True}, {"name": "layernorm"}, {"name": "layernorm", "bias": False}]
)
POSITIONS = st.sampled_from(
    [{"name": "none"}, {"name": "rope"}, {"name": "rope", "theta": 100.0, "scaling": {"name": "linear", "factor": 4.0}}]
)


@st.composite
def attentions(draw: st.DrawFn, name: str) -> dict[str, Any]:
    kv_heads = draw(SMALL)
    spec: dict[str, Any] = {"name": name, "kv_heads": kv_heads, "heads": kv_heads * draw(SMALL), "head_dim": 2 * draw(SMALL)}
    spec["bias"] = draw(st.booleans())
    for field, values in {"softcap": st.just(3.0), "scale": st.just(0.7), "qk_norm": NORMS}.items():
        if draw(st.booleans()):
            spec[field] = draw(values)
    return spec


EMBEDDINGS = st.fixed_dictionaries(
    {"name": st.just("token"), "scale": st.sampled_from(["sqrt_width", 1.0, 3.0])},
    optional={"end_of_image": st.integers(3, VOCABULARY - 1)},
)


@st.composite
def stacks(draw: st.DrawFn, *, causal: bool, source: bool) -> dict[str, Any]:
    merged = source and draw(st.booleans())
    own = draw(attentions("merged_attention" if merged else "self_attention"))
    own |= {"position": draw(POSITIONS), "mask": {"causal": causal}}
    feed_forward = {"name": draw(st.sampled_from(["gated", "mlp"])), "hidden": draw(SMALL) * 4}
    separate = source and (not merged or draw(st.booleans()))
    branches = {"own": own, "feed": feed_forward} | ({"cross": draw(attentions("cross_attention"))} if separate else {})
    window = [draw(st.integers(0, 4)), draw(st.integers(0, 4))]
    local = {"branches": {"own": {"mask": {"window": window}}}}
    return {
        "width": 4 * draw(SMALL),
        "depth": draw(SMALL),
        "embedding": draw(EMBEDDINGS),
        "layer": {
            "norm": draw(NORMS),
            "placement": draw(st.sampled_from(["pre", "post", "sandwich"])),
            "order": draw(st.permutations(list(branches))),
            "branches": branches,
        },
        "cycle": draw(st.sampled_from([[], [local], [local, {}]])),
        "final_norm": draw(NORMS | st.just({"name": "none"})),
    }


@st.composite
def specs(draw: st.DrawFn) -> pairform.ModelSpec:
    assembly = draw(st.sampled_from(["encoder_decoder", "decoder_only"]))
    document: dict[str, Any] = {
        "assembly": assembly,
        "vocabulary": VOCABULARY,
        "tokens": {"pad": 0, "eos": 1, "bos": 2},
        "decoder": draw(stacks(causal=True, source=assembly == "encoder_decoder")),
        "head": {"name": "lm"} | draw(st.sampled_from([{}, {"tie": "decoder"}, {"softcap": 5.0}])),
        "initializer_range": 0.5,
    }
    if assembly == "encoder_decoder":
        document["encoder"] = draw(stacks(causal=False, source=False))
        pair(draw, document)
    return pairform.load_spec(document)


def pair(draw: st.DrawFn, document: dict[str, Any]) -> None:
    """Give the two stacks a bridge that fits them, or one embedding."""
    encoder, decoder = document["encoder"], document["decoder"]
    document["tie_embeddings"] = draw(st.booleans())
    if document["tie_embeddings"]:
        encoder |= {"width": decoder["width"], "embedding": decoder["embedding"]}
    bridges = ["linear"]
    merged = decoder["layer"]["branches"]["own"]["name"] == "merged_attention"
    if merged:
        bridges.append("separate_keys")
    if not merged or encoder["width"] == decoder["width"]:
        bridges.append("none")
    document["bridge"] = {"name": draw(st.sampled_from(bridges))}


def inputs(spec: pairform.ModelSpec) -> dict[str, torch.Tensor]:
    ids = torch.randint(3, VOCABULARY, (2, 6), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids} if spec.encoder is None else {"input_ids": ids, "decoder_input_ids": ids[:, 1:]}


@settings(max_examples=60)
@given(specs())
def test_it_trains_and_decodes_the_same_with_a_cache(spec: pairform.ModelSpec) -> None:
    model = pairform.build(spec, seed=0)
    batch = inputs(spec)
    whole = model(**batch, labels=batch["input_ids"][:, : batch[decoded(spec)].shape[1]])
    assert whole.loss is not None
    assert whole.logits is not None
    whole.loss.backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())
    cache = pairform.Cache()
    steps = []
    with torch.no_grad():
        for token in torch.split(batch[decoded(spec)], 1, dim=1):
            steps.append(model(**{**batch, decoded(spec): token}, cache=cache).logits)
    torch.testing.assert_close(torch.cat(steps, dim=1), whole.logits, rtol=1e-4, atol=1e-4)


@settings(max_examples=25)
@given(specs())
def test_it_is_the_same_after_saving_and_loading(spec: pairform.ModelSpec) -> None:
    model = pairform.build(spec, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "model"
        pairform.save(model, out, max_shard_size="2KB")
        again = pairform.load(out)
        assert pairform.verify(out).ok
        assert again.spec == spec
        with torch.no_grad():
            assert torch.equal(again(**inputs(spec)).logits, model(**inputs(spec)).logits)


@settings(max_examples=40)
@given(specs(), st.sampled_from(["left", "right"]))
def test_padding_changes_nothing(spec: pairform.ModelSpec, side: str) -> None:
    model = pairform.build(spec, seed=0, dtype=torch.float64)
    batch = inputs(spec)
    ends = (3, 0) if side == "left" else (0, 2)
    wider = {name: functional.pad(ids, ends) for name, ids in batch.items()}
    masks = {
        name.replace("input_ids", "attention_mask"): functional.pad(torch.ones_like(ids), ends) for name, ids in batch.items()
    }
    with torch.no_grad():
        alone, padded = model(**batch).logits, model(**wider, **masks).logits
    torch.testing.assert_close(padded[:, ends[0] : padded.shape[1] - ends[1]], alone, rtol=1e-9, atol=1e-9)


def decoded(spec: pairform.ModelSpec) -> str:
    """Which argument the decoder reads."""
    return "input_ids" if spec.encoder is None else "decoder_input_ids"
