"""Latent attention against DeepSeek's in transformers, and decoded from its short cache as without one."""

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2Attention, DeepseekV2RotaryEmbedding
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3Attention, DeepseekV3RotaryEmbedding

import pairform
from pairform.blocks.attention.latent_attention import LatentAttention
from pairform.blocks.context import Context
from pairform.registry import Sizes
from tests.catalogue.decoders import IDS, MASK, check_pieces, check_writing, decoder_with
from tests.test_blocks import filled

WIDTH, HEADS, LATENT, ROPE, CONTENT, VALUE, LENGTH = 16, 4, 12, 4, 8, 6, 9
LATENTS = {"latent": LATENT, "rope_dim": ROPE, "head_dim": CONTENT, "value_dim": VALUE, "heads": HEADS}
DOCUMENT: dict[str, Any] = {
    "name": "latent_attention",
    **LATENTS,
    "position": {"name": "rope"},
    "mask": {"causal": True, "window": None},
    "latent_norm": {"name": "rmsnorm", "eps": 1e-6},
}
HIDDEN = torch.randn(2, LENGTH, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def halves(rows: Tensor) -> Tensor:
    """Channels that are turned in pairs of neighbours, in our order: the first of each pair, then the second."""
    return torch.cat((rows[0::2], rows[1::2]))


def copied(ours: Any, theirs: Any) -> None:
    """Their weights, with the rows of turned channels in our order."""
    queries = theirs.q_proj if theirs.q_proj is not None else theirs.q_b_proj
    heads = queries.weight.view(HEADS, CONTENT + ROPE, -1)
    turned = [torch.cat((head[:CONTENT], halves(head[CONTENT:]))) for head in heads]
    down = theirs.kv_a_proj_with_mqa
    keys, values = theirs.kv_b_proj.weight.view(HEADS, CONTENT + VALUE, -1).split((CONTENT, VALUE), 1)
    found = {
        "q_proj.weight": torch.cat(turned),
        "kv_down_proj.weight": torch.cat((down.weight[:LATENT], halves(down.weight[LATENT:]))),
        "kv_latent_norm.weight": theirs.kv_a_layernorm.weight,
        "k_proj.weight": keys.flatten(0, 1),
        "v_proj.weight": values.flatten(0, 1),
        "o_proj.weight": theirs.o_proj.weight,
    }
    if theirs.q_proj is None:
        found |= {"q_down_proj.weight": theirs.q_a_proj.weight, "q_latent_norm.weight": theirs.q_a_layernorm.weight}
    if down.bias is not None:
        found |= {"kv_down_proj.bias": torch.cat((down.bias[:LATENT], halves(down.bias[LATENT:])))}
        found |= {"q_down_proj.bias": theirs.q_a_proj.bias, "o_proj.bias": theirs.o_proj.bias}
    ours.load_state_dict(found)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("query_latent", [None, 10])
@pytest.mark.parametrize("kernel", ["eager", "sdpa", "chunked"])
def test_it_is_that_of_deepseek(version: int, query_latent: int | None, kernel: str) -> None:
    sizes: dict[str, Any] = {
        "hidden_size": WIDTH,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "q_lora_rank": query_latent,
        "kv_lora_rank": LATENT,
        "qk_rope_head_dim": ROPE,
        "qk_nope_head_dim": CONTENT,
        "v_head_dim": VALUE,
        "attention_bias": query_latent is not None,
        "attn_implementation": "eager",
    }
    kind, block, rotary = {
        2: (transformers.DeepseekV2Config, DeepseekV2Attention, DeepseekV2RotaryEmbedding),
        3: (transformers.DeepseekV3Config, DeepseekV3Attention, DeepseekV3RotaryEmbedding),
    }[version]
    config = kind(**sizes)
    theirs = filled(block(config, 0)).double().eval()
    spec = DOCUMENT | {"query_latent": query_latent, "bias": query_latent is not None, "kernel": kernel}
    ours = LatentAttention(LatentAttention.Spec.read(spec), Sizes(WIDTH)).double()
    copied(ours, theirs)
    angles = rotary(config)(HIDDEN, torch.arange(LENGTH)[None])
    hide = torch.full((LENGTH, LENGTH), torch.finfo(torch.float64).min, dtype=torch.float64).triu(1)[None, None]
    with torch.no_grad():
        expected = theirs(HIDDEN, attention_mask=hide, position_embeddings=angles)[0]
        found = ours(HIDDEN, Context(torch.arange(LENGTH)[None]))
        single = ours(HIDDEN[:, :1], Context(torch.arange(1)[None]))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)  # rotation is in float32
    torch.testing.assert_close(single, expected[:, :1], rtol=1e-5, atol=1e-5)


def model_with(*, cycle: Any = (), **attention: Any) -> pairform.Model:
    document = decoder_with({"name": "none"}).document()
    document["decoder"] |= {"cycle": list(cycle)}
    document["decoder"]["layer"]["branches"]["self_attention"] = DOCUMENT | attention
    return pairform.build(document, seed=0)


VARIANTS: list[dict[str, Any]] = [
    {},
    {"query_latent": 5, "softcap": 3.0, "sinks": True, "gate": "elementwise", "bias": True, "value_dim": 20},
    {"position": {"name": "alibi"}, "value_dim": None},
]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("window", [None, [3, 0]])
def test_it_decodes_with_a_cache_as_without(variant: dict[str, Any], window: list[int] | None) -> None:
    model = model_with(**variant, cycle=[{"branches": {"self_attention": {"mask": {"window": window}}}}])
    check_writing(model)
    check_pieces(model, [1, 3, 1, 4])


def test_weights_that_cannot_be_multiplied_by_queries_are_applied_to_latents() -> None:
    """As quantised ones, which have another class."""
    model = model_with()
    expected = model.generate(IDS, MASK, max_new_tokens=5)
    for name, module in list(model.named_modules()):
        if name.endswith("k_proj"):
            other = nn.Linear(LATENT, HEADS * CONTENT, bias=False)
            other.weight = module.get_parameter("weight")
            model.set_submodule(name, other)
    assert torch.equal(model.generate(IDS, MASK, max_new_tokens=5), expected)


@pytest.mark.usefixtures("graphs_as_traced")
def test_it_decodes_in_a_compiled_step() -> None:
    model = pairform.build(pairform.patch(model_with(**VARIANTS[1]).spec, {"decoder": {"depth": 1}}), seed=0)
    plain, compiled = (model.generate(IDS, MASK, max_new_tokens=5, compile=chosen) for chosen in (False, True))
    assert torch.equal(plain, compiled)


def test_the_cache_holds_the_latent_and_the_turned_key_alone() -> None:
    model, cache = model_with(), pairform.Cache()
    model(IDS, cache=cache)
    layers = model.spec.decoder.depth if model.spec.decoder else 0
    assert cache.bytes == layers * IDS.numel() * (LATENT + ROPE) * 4
    cost = pairform.inspect(model.spec, target_length=LENGTH, batch=2, dtype=torch.float32)
    assert cost.cache_bytes["self"] == cache.bytes


def test_it_trains_in_every_kernel_alike_and_packed_documents_are_apart() -> None:
    model = model_with()
    gradients = []
    for kernel in ("eager", "sdpa", "chunked"):
        model.use_kernel(kernel)
        model.zero_grad()
        model(IDS, labels=IDS).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for found in gradients[1:]:
        torch.testing.assert_close(found, gradients[0], rtol=1e-4, atol=1e-5)
    segments = torch.tensor([[1, 1, 1, 1, 2, 2, 2, 2, 2]]).expand(2, -1)
    packed = model(IDS, segment_ids=segments).logits
    alone = torch.cat([model(IDS[:, :4]).logits, model(IDS[:, 4:]).logits], 1)
    torch.testing.assert_close(packed, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kv_heads": 2}, "kv_heads: found 2, expected null"),
        ({"qk_norm": {"name": "rmsnorm"}}, "qk_norm: found 'rmsnorm', expected null"),
        ({"rope_dim": 3}, "position: found rope over a head_dim of 3"),
    ],
)
def test_fields_that_do_not_fit_are_refused_when_the_spec_is_read(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(pairform.PairformError, match=message):
        model_with(**fields)
