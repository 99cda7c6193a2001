"""Positions against transformers' functions and the papers' formulas."""

from typing import Any, Literal

import pytest
import torch
import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.t5.modeling_t5 import T5Attention

import pairform
from pairform.assemblies.generation import decoding
from pairform.blocks.attention.merged_attention import MergedAttention
from pairform.blocks.attention.self_attention import SelfAttention
from pairform.blocks.context import Context, Source
from pairform.blocks.positions.rotary import RotaryPosition
from pairform.blocks.positions.score_biases import T5RelativePosition, slopes
from pairform.registry import Sizes
from tests.catalogue.decoders import IDS, MASK, check_pieces, check_writing, decoder_with
from tests.registries import forget_new_blocks
from tests.test_blocks import filled

HEAD_DIM, ORIGINAL = 32, 16
SCALINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "linear": ({"factor": 4.0}, {"factor": 4.0}),
    "dynamic": ({"factor": 4.0, "original_length": ORIGINAL}, {"factor": 4.0}),
    "yarn": (
        {"factor": 4.0, "original_length": 512},
        {"factor": 4.0, "original_max_position_embeddings": 512},
    ),
    "yarn, all set": (
        {"factor": 4.0, "original_length": 512, "beta_fast": 8.0, "beta_slow": 2.0, "attention": 1.5},
        {"factor": 4.0, "original_max_position_embeddings": 512, "beta_fast": 8, "beta_slow": 2, "attention_factor": 1.5},
    ),
    "yarn, not truncated": (
        {"factor": 4.0, "original_length": 512, "truncate": False},
        {"factor": 4.0, "original_max_position_embeddings": 512, "truncate": False},
    ),
    "llama3": (
        {"factor": 8.0, "original_length": 512, "low_frequency": 1.0, "high_frequency": 4.0},
        {"factor": 8.0, "original_max_position_embeddings": 512, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    ),
    "longrope": (
        {"short": [1.0] * 16, "long": [1.0 + pair for pair in range(16)], "original_length": ORIGINAL, "attention": 1.25},
        {
            "short_factor": [1.0] * 16,
            "long_factor": [1.0 + pair for pair in range(16)],
            "original_max_position_embeddings": ORIGINAL,
            "attention_factor": 1.25,
        },
    ),
    "proportional": ({"fraction": 0.25, "factor": 2.0}, {"partial_rotary_factor": 0.25, "factor": 2.0}),
}


def turned(spec: dict[str, Any], heads: torch.Tensor) -> torch.Tensor:
    """`heads` `[batch, heads, length, head_dim]` with a rope's rotation at places 0, 1, ..."""
    rope = RotaryPosition(RotaryPosition.Spec.read(spec), Sizes(heads.shape[-1]))
    return rope(heads, Context(torch.arange(heads.shape[2])[None]))


def rotation(heads: torch.Tensor, frequencies: torch.Tensor, factor: float) -> torch.Tensor:
    """The same by complex numbers."""
    first, second = heads.double().chunk(2, -1)
    angles = torch.outer(torch.arange(heads.shape[2]).double(), frequencies.double())
    pairs = torch.complex(first, second) * torch.polar(torch.full_like(angles, factor), angles)
    return torch.cat((pairs.real, pairs.imag), -1).float()


@pytest.mark.parametrize("case", SCALINGS)
@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_scalings_are_those_of_transformers(case: str, fraction: float) -> None:
    name = case.split(",")[0]
    ours, theirs = SCALINGS[case]
    if name in ("proportional", "longrope"):  # the second has a number for each pair of the whole head
        fraction = 1.0
    parameters = {"rope_type": name, "rope_theta": 500.0, "partial_rotary_factor": fraction} | theirs
    config = transformers.LlamaConfig(
        hidden_size=4 * HEAD_DIM, num_attention_heads=4, max_position_embeddings=ORIGINAL, rope_parameters=parameters
    )
    length = 40
    frequencies, factor = ROPE_INIT_FUNCTIONS[name](config, torch.device("cpu"), seq_len=length)
    spec = {"theta": 500.0, "fraction": fraction, "scaling": {"name": name} | ours}
    heads = torch.randn(2, 3, length, HEAD_DIM, generator=torch.Generator().manual_seed(0))
    channels = 2 * len(frequencies)
    expected = torch.cat((rotation(heads[..., :channels], frequencies, factor), heads[..., channels:]), -1)
    torch.testing.assert_close(turned(spec, heads), expected, rtol=1e-5, atol=2e-5)
    plain = turned({"theta": 500.0, "fraction": fraction}, heads)
    assert not torch.allclose(plain, expected, atol=1e-2), "the scaling changes something"


LONGROPE = {"name": "longrope", "short": [1.0] * 4, "long": [1.0, 2.0, 4.0, 8.0], "original_length": 8}


@pytest.mark.parametrize("scaling", [{"name": "dynamic", "factor": 4.0, "original_length": 8}, LONGROPE])
def test_scaling_by_length_is_each_rows_own_and_none_within_the_original_length(scaling: dict[str, Any]) -> None:
    spec = {"scaling": scaling}
    rope = RotaryPosition(RotaryPosition.Spec.read(spec), Sizes(8))
    heads = torch.randn(2, 1, 6, 8)
    positions = torch.stack((torch.arange(6), torch.arange(6) + 20))
    both = rope(heads, Context(positions))
    torch.testing.assert_close(both[1:], rope(heads[1:], Context(positions[1:])))
    torch.testing.assert_close(both[:1], turned({}, heads[:1]))


def test_a_prompt_under_dynamic_scaling_is_not_run_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """The frequencies depend on how many tokens the call has, so that those of pieces would differ from transformers'."""
    monkeypatch.setattr(decoding, "PIECE", 4)
    for scaling, pieces in ({"name": "dynamic", "factor": 4.0, "original_length": 5}, 1), ({"name": "default"}, 3):
        model = pairform.build(decoder_with({"name": "rope", "scaling": scaling}), seed=0, dtype=torch.float64)
        calls: list[object] = []
        assert model.decoder is not None
        model.decoder.register_forward_hook(lambda *call, calls=calls: calls.append(call))
        written = model.generate(IDS, max_new_tokens=1, eos_token_id=())
        assert len(calls) == pieces
        logits = model(IDS).logits
        assert logits is not None
        assert torch.equal(written[:, -1], logits[:, -1].argmax(-1))


@pytest.mark.parametrize(
    ("position", "words"),
    [
        ({"fraction": 0.4}, "0.4 of a head_dim of 8"),
        ({"fraction": 0.0}, "greater than 0"),
        ({"scaling": {"name": "llama3", "factor": 8.0, "original_length": 4, "low_frequency": 9.0}}, "below high_frequency"),
        ({"scaling": {"name": "yarn", "factor": 0.5, "original_length": 4}}, "greater than or equal to 1"),
        ({"scaling": {"name": "dynamic", "factor": 2.0}}, "original_length"),
        ({"scaling": {"name": "longrope", "short": [1.0] * 4, "long": [1.0] * 3, "original_length": 4}}, "scaling.long.*3 num"),
    ],
)
def test_a_rope_that_cannot_be_is_refused_when_it_is_read(position: dict[str, Any], words: str) -> None:
    with pytest.raises(pairform.PairformError, match=words):
        decoder_with(position | {"name": "rope"})


BIASES: list[dict[str, Any]] = [
    {"name": "alibi"},
    {"name": "t5_relative", "buckets": 8, "max_distance": 12, "bidirectional": False},
    {"name": "t5_relative", "buckets": 8, "max_distance": 12},
]


def test_t5_buckets_are_those_of_transformers() -> None:
    distances = torch.arange(-200, 201)[None]
    for bidirectional in (True, False):
        spec = T5RelativePosition.Spec(bidirectional=bidirectional)
        ours = T5RelativePosition(spec, Sizes(8, heads=2)).buckets(distances)
        theirs = T5Attention._relative_position_bucket(distances, bidirectional, 32, 128)
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("heads", [1, 4, 8, 12])
def test_alibis_slopes_are_those_of_transformers(heads: int) -> None:
    theirs = build_alibi_tensor(torch.ones(1, 2), heads, torch.float64)[:, 0, 1]  # at the distance 1
    torch.testing.assert_close(slopes(heads).double(), theirs, rtol=1e-6, atol=0)  # theirs are powers of a float32


@pytest.mark.parametrize("causal", [True, False])
def test_t5_attention_is_that_of_transformers(causal: bool) -> None:
    config = transformers.T5Config(
        d_model=16, d_kv=8, num_heads=2, is_decoder=causal, relative_attention_num_buckets=8, relative_attention_max_distance=12
    )
    theirs = T5Attention(config, has_relative_attention_bias=True, layer_idx=0).double().eval()
    position = {"name": "t5_relative", "buckets": 8, "max_distance": 12, "bidirectional": not causal}
    mask = {"causal": causal}
    document = {"heads": 2, "head_dim": 8, "scale": 1.0, "position": position, "mask": mask}
    ours = SelfAttention(SelfAttention.Spec.read(document), Sizes(16)).double()
    with torch.no_grad():
        for name in "qkvo":
            getattr(ours, f"{name}_proj").weight.copy_(getattr(theirs, name).weight.normal_())
        ours.position.table.weight.copy_(theirs.relative_attention_bias.weight.normal_())
    hidden = torch.randn(2, 20, 16, dtype=torch.float64)
    hide = torch.full((20, 20), torch.finfo(torch.float64).min, dtype=torch.float64).triu(1) if causal else torch.zeros(20, 20)
    expected = theirs(hidden, mask=hide.double()[None, None])[0]
    torch.testing.assert_close(ours(hidden, Context(torch.arange(20)[None])), expected)


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("block", [SelfAttention, MergedAttention])
def test_alibi_is_a_penalty_on_distance_and_none_on_the_source(block: Any, kernel: str) -> None:
    document = {"heads": 2, "head_dim": 8, "position": {"name": "alibi"}, "mask": {"causal": True}, "kernel": kernel}
    attention = filled(block(block.Spec.read(document), Sizes(16, source_width=16))).double()
    hidden, source = (torch.randn(2, length, 16, dtype=torch.float64) for length in (6, 3))
    valid = torch.tensor([[True] * 6, [False, False, True, True, True, True]])
    mixed = attention(hidden, Context(torch.arange(6)[None], valid=valid, source=Source(source)))
    queries, keys, values = (
        projection(rows).view(2, -1, 2, 8).transpose(1, 2)
        for projection, rows in (
            (attention.q_proj, hidden),
            (attention.k_proj, torch.cat((hidden, source), 1)),
            (attention.v_proj, torch.cat((hidden, source), 1)),
        )
    )
    distance = (torch.arange(6)[:, None] - torch.arange(6)).double()
    penalty = torch.tensor([2.0**-4, 2.0**-8], dtype=torch.float64)[:, None, None] * distance
    scores = queries @ keys.mT / 8**0.5
    scores[..., :6] = (scores[..., :6] - penalty).masked_fill((distance < 0) | ~valid[:, None, None], -torch.inf)
    if block is SelfAttention:
        scores, values = scores[..., :6], values[:, :, :6]
    expected = attention.o_proj((scores.softmax(-1) @ values).transpose(1, 2).flatten(2))
    torch.testing.assert_close(mixed[valid], expected[valid])


@pytest.mark.parametrize("position", BIASES)
@pytest.mark.parametrize("window", [None, [3, 0]])
def test_biases_decode_with_a_cache_as_without(position: dict[str, Any], window: list[int] | None) -> None:
    local = {"branches": {"self_attention": {"mask": {"window": window}}}}
    model = pairform.build(decoder_with(position, cycle=[local]), seed=0)
    check_writing(model)
    check_pieces(model, 1)


@pytest.mark.usefixtures("graphs_as_traced")
def test_biases_decode_in_a_compiled_step_and_in_beams() -> None:
    position = BIASES[1] | {"shared": True}
    own = {"layers": [0], "patch": {"branches": {"self_attention": {"position": {"shared": False}}}}}
    local = {"branches": {"self_attention": {"mask": {"window": [5, 0]}}}}
    model = pairform.build(decoder_with(position, cycle=[{}, local], overrides=[own]), seed=0)
    plain = check_writing(model, beams=(2, 1))
    assert torch.equal(model.generate(IDS, MASK, max_new_tokens=5, compile=True), plain)


def test_a_shared_table_is_one_parameter_that_all_layers_train_and_checkpointing_changes_nothing() -> None:
    own = {"layers": [0], "patch": {"branches": {"self_attention": {"position": {"shared": False}}}}}
    spec = decoder_with(BIASES[1] | {"shared": True}, depth=3, overrides=[own])
    model = pairform.build(spec, seed=0).train()
    tables = [name for name, _ in model.named_parameters() if "table" in name]
    assert tables == ["decoder.layers.0.self_attention.block.position.table.weight"]
    gradients = []
    for layers in ("none", "all"):
        model.checkpoint_layers(layers)
        model.zero_grad()
        model(IDS, labels=IDS).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=0)
    alone = pairform.build(decoder_with(BIASES[1], depth=3), seed=0)
    for name, parameter in alone.named_parameters():
        owner = name if "table" not in name else tables[0]
        parameter.data.copy_(model.get_parameter(owner))
    torch.testing.assert_close(alone(IDS).logits, model(IDS).logits)


def test_a_table_that_nobody_owns_is_refused_when_the_spec_is_read() -> None:
    with pytest.raises(pairform.PairformError, match=r"layers\[0\].branches.self_attention.position.shared: found true"):
        decoder_with({"name": "t5_relative", "shared": True})
    other = {"layers": [0], "patch": {"branches": {"self_attention": {"position": {"shared": False, "buckets": 16}}}}}
    with pytest.raises(pairform.PairformError, match="32 buckets for 2 heads, expected the shared table's: 16 buckets"):
        decoder_with({"name": "t5_relative", "shared": True}, overrides=[other])
    with pytest.raises(pairform.PairformError, match="4 divides"):
        decoder_with({"name": "t5_relative", "buckets": 6})


def test_a_table_of_another_kind_is_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_new_blocks(monkeypatch)

    @pairform.register("position")
    class OtherPosition(T5RelativePosition):
        class Spec(T5RelativePosition.Spec):
            name: Literal["other_relative"] = "other_relative"  # type: ignore[assignment]

    other = {"self_attention": {"position": {"name": "other_relative", "shared": False}}}
    with pytest.raises(pairform.PairformError, match="self_attention has a t5_relative of its own"):
        decoder_with({"name": "t5_relative", "shared": True}, overrides=[{"layers": [0], "patch": {"branches": other}}])


def test_a_kernel_that_adds_no_bias_is_refused_with_those_that_do() -> None:
    with pytest.raises(pairform.PairformError, match=r"one of sdpa, eager, chunked as kernel: flex cannot do a bias on scores"):
        pairform.patch(
            decoder_with({"name": "alibi"}), {"decoder": {"layer": {"branches": {"self_attention": {"kernel": "flex"}}}}}
        )


def test_yarn_over_pairs_that_all_turn_alike_is_refused() -> None:
    yarn = {"name": "yarn", "factor": 2.0, "original_length": 8}
    with pytest.raises(pairform.PairformError, match="with yarn, expected more than 1"):
        decoder_with({"name": "rope", "theta": 1.0, "scaling": yarn})
