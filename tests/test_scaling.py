"""Models scaled to another width and depth."""

from collections import Counter
from typing import Any, get_args

import pytest
import torch
from hypothesis import Phase, given, seed, settings
from hypothesis import strategies as st

import pairform
from pairform.assemblies.specs.scaling.scaled_layers import sources
from pairform.registry import KINDS, Scales
from tests.catalogue.any_spec import Document, documents
from tests.catalogue.places import inputs, loss_of

KEPT = {
    "absolute_position.learned": {"length", "offset"},
    "absolute_position.sinusoidal": {"offset"},
    "embedding.patches": {"image_size", "patch_size", "channels"},
    "embedding.token": {"end_of_image"},
    "feed_forward.mixture": {"experts", "top_k"},
    "head.sequence_classification": {"labels"},
    "head.token_classification": {"labels"},
    "position.t5_relative": {"buckets", "max_distance"},
    "projector.average_pool": {"tokens"},
}
"""Whole numbers that do not depend on a model's size."""


@pytest.mark.parametrize("assembly", ["encoder_decoder", "decoder_only", "encoder_only"])
def test_any_model_can_be_scaled(assembly: str) -> None:
    """It is valid and runs at its new size; its own size changes nothing."""
    counts: Counter[str] = Counter()

    @seed(5)
    @settings(max_examples=30, deadline=None, database=None, phases=[Phase.generate])
    @given(documents(assembly), st.sampled_from([8, 16, 24, 48]), st.integers(1, 5))
    def check(document: Document, width: int, depth: int) -> None:
        try:
            spec = pairform.load_spec(document)
        except pairform.PairformError:
            return
        assert pairform.scale(spec, width=spec.last.width, depth=spec.last.depth) == spec
        scaled = pairform.scale(spec, width=width, depth=depth)
        assert (scaled.last.width, scaled.last.depth) == (width, depth)
        with torch.no_grad():
            assert loss_of(pairform.build(scaled, seed=0).eval(), inputs(scaled)).isfinite()
        counts["scaled"] += 1

    check()
    assert counts["scaled"] >= 15


@pytest.mark.parametrize("preset", pairform.presets())
def test_every_preset_can_be_scaled(preset: str) -> None:
    spec = pairform.load_spec(preset)
    assert pairform.scale(spec, width=spec.last.width, depth=spec.last.depth) == spec
    for width, depth in ((64, 2), (96, 7)):
        scaled = pairform.scale(preset, width=width, depth=depth)
        assert (scaled.last.width, scaled.last.depth) == (width, depth)
        assert {part: stack.vocabulary for part, stack in scaled.stacks.items()} == {
            part: stack.vocabulary for part, stack in spec.stacks.items()
        }
        assert pairform.inspect(scaled, source_length=6, target_length=5).parameters["total"] > 0


def has_whole_number(annotation: object) -> bool:
    return annotation is int or any(map(has_whole_number, get_args(annotation)))


def test_every_whole_number_of_a_block_is_a_size_or_kept() -> None:
    """A new field of a block says whether it changes with the size of the model."""
    undecided = []
    for kind, registry in KINDS.items():
        for name, block in registry.items():
            for field, info in block.Spec.model_fields.items():
                whole = has_whole_number(info.annotation)
                marked = any(isinstance(mark, Scales) for mark in info.metadata)
                if whole and not marked and field not in KEPT.get(f"{kind}.{name}", ()):
                    undecided.append(f"{kind}.{name}.{field}")
    assert not undecided


def heads_of(spec: pairform.ModelSpec, part: str = "decoder") -> list[tuple[int, int, int]]:
    """Heads, key heads and head dimension of each layer."""
    found: list[Any] = [layer.branches["self_attention"] for layer in spec.stacks[part].layers]
    return [(each.heads, each.kv_heads or each.heads, each.head_dim or spec.stacks[part].width // each.heads) for each in found]


def test_proportions_are_kept() -> None:
    half = pairform.scale("t5gemma-2b-2b", width=1152, depth=13)
    assert heads_of(half) == [(4, 2, 256)] * 13
    assert half.decoder is not None
    assert half.decoder.layer.branches["feed_forward"].document()["hidden"] == 4608
    small = pairform.scale("t5gemma-9b-2b", width=64, depth=2)
    assert small.encoder is not None
    assert (small.encoder.width, small.encoder.depth) == (96, 3)  # 3584 / 2304 and 42 / 26 of the decoder's


@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim", "expected"),
    [
        (8, None, None, (2, 2, 32)),
        (8, 8, 64, (2, 2, 32)),
        (8, 4, None, (4, 2, 16)),
        (8, 2, 64, (8, 2, 8)),
        (8, 1, 64, (2, 1, 32)),
        (1, None, None, (1, 1, 64)),
    ],
)
def test_attention_stays_what_it_is(
    heads: int, kv_heads: int | None, head_dim: int | None, expected: tuple[int, int, int]
) -> None:
    """At an eighth of the width, one head of eight would be left: multi-head, grouped-query and multi-query would be one."""
    attention = {"heads": heads, "kv_heads": kv_heads, "head_dim": head_dim, "scale": None}
    patch = {"width": 512, "layer": {"branches": {"self_attention": attention}}}
    spec = pairform.load_spec("gemma-2-2b", {"decoder": patch})
    assert set(heads_of(pairform.scale(spec, width=64, depth=2))) == {expected}


def test_scores_keep_their_size() -> None:
    """An explicit factor on scores keeps its ratio to the root of the head dimension."""
    spec = pairform.scale("t5gemma-s-s", width=64)
    attention = spec.stacks["decoder"].layer.branches["self_attention"].document()
    assert (attention["head_dim"], attention["scale"]) == (32, pytest.approx(0.125 * 2**0.5))


@pytest.mark.parametrize(
    ("depth", "new", "period", "expected"),
    [
        (12, 4, 1, [0, 4, 7, 11]),
        (12, 4, 2, [0, 3, 8, 11]),
        (26, 2, 6, [2, 5]),
        (26, 1, 6, [5]),
        (4, 6, 2, [0, 1, 2, 1, 2, 3]),
    ],
)
def test_layers_keep_their_place_in_the_cycle(depth: int, new: int, period: int, expected: list[int]) -> None:
    assert sources(depth, new, period) == expected


def test_windows_are_scaled_if_asked() -> None:
    """The largest gets the wanted length, and others keep their ratio. Causal ones have none to the right."""
    windows = [{"mask": {"causal": True, "window": [left, 0]}} for left in (400, 100)]
    cycle = [{"branches": {"self_attention": patch}} for patch in windows]
    spec = pairform.load_spec("gemma-2-2b", {"decoder": {"cycle": cycle}})
    layers: list[Any] = [layer.branches["self_attention"] for layer in pairform.scale(spec, depth=2, window=8).last.layers]
    assert [layer.mask.window for layer in layers] == [(8, 0), (2, 0)]
    layers = [layer.branches["self_attention"] for layer in pairform.scale(spec, depth=2).last.layers]
    assert [layer.mask.window for layer in layers] == [(400, 0), (100, 0)]
    with pytest.raises(pairform.PairformError, match="window: found 8, expected none: the model has no sliding window"):
        pairform.scale("t5-small", window=8)


def test_the_divisors_of_longrope_follow_the_head_dimension() -> None:
    """Each pair keeps the divisor of the pair at its relative place."""
    scaling = {"name": "longrope", "short": [1.0] * 4 + [2.0] * 4, "long": [1.0] * 4 + [4.0] * 4, "original_length": 64}
    attention = {"heads": 2, "kv_heads": 2, "head_dim": 16, "position": {"scaling": scaling}}
    spec = pairform.load_spec("gemma-2-2b", {"decoder": {"width": 32, "layer": {"branches": {"self_attention": attention}}}})
    found: Any = pairform.scale(spec, width=16).last.layer.branches["self_attention"]
    assert found.head_dim == 8
    assert found.position.scaling.short == (1.0, 1.0, 2.0, 2.0)
    assert found.position.scaling.long == (1.0, 1.0, 4.0, 4.0)


def test_sizes_inside_blocks_follow_the_width() -> None:
    """Of experts, latent vectors and low-rank embeddings. Numbers of experts stay."""
    latent = {"name": "latent_attention", "heads": 4, "head_dim": 32, "latent": 64, "rope_dim": 16, "mask": {"causal": True}}
    experts = {"name": "mixture", "experts": 6, "expert": {"name": "gated", "hidden": 96}}
    branches = {"self_attention": latent | {"kv_heads": None, "position": {"name": "rope"}}, "feed_forward": experts}
    stack = {"width": 128, "embedding": {"name": "factorised", "rank": 32}, "layer": {"branches": branches}, "cycle": []}
    spec = pairform.load_spec("gemma-2-2b", {"decoder": stack})
    document = pairform.scale(spec, width=64).document()["decoder"]
    attention, mixture = (document["layer"]["branches"][name] for name in ("self_attention", "feed_forward"))
    assert {name: attention[name] for name in ("heads", "head_dim", "latent", "rope_dim")} == {
        "heads": 2,
        "head_dim": 32,
        "latent": 32,
        "rope_dim": 16,
    }
    assert (mixture["experts"], mixture["expert"]["hidden"], document["embedding"]["rank"]) == (6, 48, 16)
