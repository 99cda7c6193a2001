"""Variants of attention against transformers' implementations, and decoded with a cache as without."""

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers.models.diffllama.modeling_diffllama import DiffLlamaAttention, DiffLlamaRotaryEmbedding
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssAttention
from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextAttention

import pairform
from pairform.blocks.attention.cross_attention import CrossAttention
from pairform.blocks.attention.differential_attention import DifferentialAttention
from pairform.blocks.attention.self_attention import SelfAttention
from pairform.blocks.context import Context, Source
from pairform.registry import Sizes
from tests.catalogue.decoders import IDS, MASK, check_pieces, check_writing, decoder_with
from tests.test_blocks import filled

LENGTH, WIDTH, HEADS, KV_HEADS, HEAD_DIM = 7, 16, 4, 2, 8
DOCUMENT = {"heads": HEADS, "kv_heads": KV_HEADS, "head_dim": HEAD_DIM, "position": {"name": "rope"}, "mask": {"causal": True}}
SIZES: dict[str, Any] = {
    "hidden_size": WIDTH,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD_DIM,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attn_implementation": "eager",
}
HIDDEN = torch.randn(2, LENGTH, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def both(ours: nn.Module, theirs: nn.Module, *, angles: int = HEAD_DIM) -> tuple[Tensor, Tensor]:
    """The answers of two causal attentions to the same hidden states. `angles`: how many of each place the second is given."""
    config = transformers.LlamaConfig(hidden_size=HEADS * HEAD_DIM, num_attention_heads=HEADS)
    cos, sin = DiffLlamaRotaryEmbedding(config)(HIDDEN, torch.arange(LENGTH)[None])
    tables = cos[..., :angles], sin[..., :angles]
    hide = torch.full((LENGTH, LENGTH), torch.finfo(torch.float64).min, dtype=torch.float64).triu(1)[None, None]
    with torch.no_grad():
        return ours(HIDDEN, Context(torch.arange(LENGTH)[None])), theirs(HIDDEN, tables, hide)[0]


def copied(block: Any, spec: dict[str, Any], theirs: nn.Module, *, layer: int = 0) -> nn.Module:
    """Our block with random weights that `theirs` gets too, by the same names."""
    torch.manual_seed(0)
    ours = filled(block(block.Spec.read(DOCUMENT | spec), Sizes(WIDTH, layer=layer))).double()
    shapes = {name: tensor.shape for name, tensor in theirs.state_dict().items()}
    same = {name: tensor for name, tensor in ours.state_dict().items() if shapes.get(name) == tensor.shape}
    theirs.load_state_dict(same, strict=False)
    return ours


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_sinks_are_those_of_gpt_oss(kernel: str) -> None:
    theirs = GptOssAttention(
        transformers.GptOssConfig(**SIZES, layer_types=["full_attention"], num_hidden_layers=1), 0
    ).double()
    ours = copied(SelfAttention, {"sinks": True, "kernel": kernel}, theirs)
    found = both(ours, theirs, angles=HEAD_DIM // 2)
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-6)  # rotation is in float32


def test_a_gate_is_that_of_qwen3_next() -> None:
    exact = SIZES | {"attn_implementation": "sdpa"}  # their eager softmax is in float32
    theirs = Qwen3NextAttention(transformers.Qwen3NextConfig(**exact), 0).double()
    ours = copied(SelfAttention, {"gate": "elementwise", "qk_norm": {"name": "rmsnorm", "unit_offset": True}}, theirs)
    queries, gates = (getattr(ours, name).weight.view(HEADS, HEAD_DIM, WIDTH) for name in ("q_proj", "gate_proj"))
    theirs.q_proj.weight.data.copy_(torch.cat((queries, gates), 1).flatten(0, 1))
    for norm in (theirs.q_norm, theirs.k_norm):  # theirs compute in float32 too
        norm.forward = lambda rows, norm=norm: norm._norm(rows) * (1 + norm.weight)
    torch.testing.assert_close(*both(ours, theirs), rtol=1e-6, atol=1e-6)


def test_a_gate_of_each_head_is_a_factor_of_each_head() -> None:
    block = filled(SelfAttention(SelfAttention.Spec.read(DOCUMENT | {"gate": "headwise"}), Sizes(WIDTH))).double()
    bare = SelfAttention(SelfAttention.Spec.read(DOCUMENT), Sizes(WIDTH)).double()
    bare.load_state_dict(block.state_dict(), strict=False)
    context = Context(torch.arange(LENGTH)[None])
    queries, (keys, values) = bare.position(bare.queries(HIDDEN), context), bare.keys_values(HIDDEN)
    own = bare.read_own(bare.position(keys, context), values, context)
    found = bare.attend(queries, (own,), context).transpose(1, 2)
    expected = block.o_proj((found * block.gate_proj(HIDDEN).sigmoid()[..., None]).flatten(2))
    torch.testing.assert_close(block(HIDDEN, Context(torch.arange(LENGTH)[None])), expected)


@pytest.mark.parametrize("layer", [0, 3])
def test_differential_attention_is_that_of_transformers(layer: int) -> None:
    theirs = DiffLlamaAttention(transformers.DiffLlamaConfig(**SIZES, rms_norm_eps=1e-5), layer).double()
    ours = copied(DifferentialAttention, {}, theirs, layer=layer)
    torch.testing.assert_close(*both(ours, theirs), rtol=1e-6, atol=1e-6)


def test_a_source_may_be_left_unread_by_a_sink() -> None:
    block = filled(CrossAttention(CrossAttention.Spec(heads=2, head_dim=8, sinks=True), Sizes(WIDTH, source_width=WIDTH)))
    block.sinks.data.fill_(50.0)
    answer = block(HIDDEN.float(), Context(torch.arange(LENGTH)[None], source=Source(torch.randn(2, 5, WIDTH))))
    torch.testing.assert_close(answer, torch.zeros_like(answer), rtol=0, atol=1e-6)


VARIANTS: list[dict[str, Any]] = [
    {"sinks": True},
    {"gate": "headwise", "softcap": 3.0, "sinks": True},
    {"name": "differential_attention", "gate": "elementwise"},
]


def model_with(variant: dict[str, Any], **stack: Any) -> pairform.Model:
    document = decoder_with({"name": "rope"}, **stack).document()
    document["decoder"]["layer"]["branches"]["self_attention"] = {"name": "self_attention"} | DOCUMENT | variant
    return pairform.build(pairform.load_spec(document), seed=0)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("window", [None, [3, 0]])
def test_variants_decode_with_a_cache_as_without(variant: dict[str, Any], window: list[int] | None) -> None:
    model = model_with(variant, cycle=[{"branches": {"self_attention": {"mask": {"window": window}}}}])
    check_writing(model)
    check_pieces(model, 1)


@pytest.mark.usefixtures("graphs_as_traced")
def test_variants_decode_in_a_compiled_step() -> None:
    second = {"layers": [1], "patch": {"branches": {"self_attention": VARIANTS[2]}}}
    model = model_with(VARIANTS[1], overrides=[second])
    plain, compiled = (model.generate(IDS, MASK, max_new_tokens=5, compile=chosen) for chosen in (False, True))
    assert torch.equal(plain, compiled)


def test_heads_that_make_no_pairs_are_refused_when_the_spec_is_read() -> None:
    with pytest.raises(pairform.PairformError, match="kv_heads: found 1, expected an even number"):
        model_with({"name": "differential_attention", "kv_heads": 1})
