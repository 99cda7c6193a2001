"""Prefix masks: tokens of a row's prefix see each other, the rest sees what came before."""

from typing import Any

import pytest
import torch
from torch.nn import functional

import pairform
from tests.catalogue.decoders import IDS, MASK, check_writing, decoder_with
from tests.test_blocks import TINY

KERNELS = ("eager", "sdpa", "chunked")
LENGTHS = torch.tensor([5, 3])


def model_with(window: list[int] | None = None, kernel: str = "auto", **attention: Any) -> pairform.Model:
    """Two layers, of which the first is local where there is a window."""
    own = {"mask": {"causal": True, "prefix": True}} | attention
    local = {"branches": {"self_attention": {"mask": {"window": window}}}}
    patch = {"decoder": {"layer": {"branches": {"self_attention": own}}, "cycle": [local, {}]}}
    return pairform.build(pairform.patch(decoder_with({"name": "rope"}), patch), seed=0, kernel=kernel)


def may_see(query: int, key: int, prefix: int, window: list[int] | None) -> bool:
    left, right = (9, 9) if window is None else window
    return key <= query + right and query - key <= left and (key <= query or query < prefix > key)


@pytest.mark.parametrize("window", [None, [2, 1], [3, 4]])
def test_a_token_sees_its_past_and_its_prefix(window: list[int] | None) -> None:
    model = model_with(window)
    seen = model(IDS, prefix_lengths=LENGTHS, output_attentions=True).attentions
    for row, prefix in enumerate(LENGTHS.tolist()):
        for layer, reach in zip(seen, (window, None), strict=True):
            expected = [[may_see(query, key, prefix, reach) for key in range(9)] for query in range(9)]
            assert (layer[row] > 0).all(0).tolist() == expected
            assert (layer[row] > 0).any(0).tolist() == expected


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("window", [None, [2, 1]])
@pytest.mark.parametrize("ends", [(0, 0), (3, 0), (0, 2), (2, 2)])
def test_padding_changes_nothing_in_any_kernel(kernel: str, window: list[int] | None, ends: tuple[int, int]) -> None:
    model = model_with(window, "eager")
    alone = model(IDS, prefix_lengths=LENGTHS).logits
    model.use_kernel(kernel)
    mask = functional.pad(torch.ones_like(IDS), ends)
    padded = model(functional.pad(IDS, ends), mask, prefix_lengths=LENGTHS).logits
    torch.testing.assert_close(padded[:, ends[0] : ends[0] + 9], alone, rtol=1e-4, atol=1e-4)


def test_without_a_prefix_it_is_causal_and_a_prefix_of_all_is_bidirectional() -> None:
    model = model_with()
    causal = pairform.build(model_with(mask={"causal": True}).spec, seed=0)
    both = pairform.build(model_with(mask={"causal": False}).spec, seed=0)
    torch.testing.assert_close(model(IDS).logits, causal(IDS).logits)
    torch.testing.assert_close(model(IDS, prefix_lengths=torch.tensor([9, 9])).logits, both(IDS).logits)


@pytest.mark.parametrize("window", [None, [3, 2]])
@pytest.mark.parametrize("position", [{"name": "rope"}, {"name": "t5_relative", "buckets": 8, "max_distance": 12}])
def test_a_prompt_is_a_prefix_with_a_cache_as_without(window: list[int] | None, position: dict[str, Any]) -> None:
    model = model_with(window, position=position)
    written, longer = check_writing(model, beams=(2, 1)), functional.pad(MASK, (0, 5), value=1)
    logits = model(written, longer, prefix_lengths=MASK.sum(1)).logits
    greedy = model.generate(IDS, MASK, max_new_tokens=1)
    assert torch.equal(logits[:, 8].argmax(-1), greedy[:, 9])


@pytest.mark.usefixtures("graphs_as_traced")
def test_a_compiled_step_goes_on_from_a_prefix() -> None:
    model = pairform.build(pairform.patch(model_with([3, 2]).spec, {"decoder": {"depth": 1}}), seed=0)
    plain, compiled = (model.generate(IDS, MASK, max_new_tokens=5, compile=chosen) for chosen in (False, True))
    assert torch.equal(plain, compiled)


def test_a_decoder_beside_an_encoder_may_have_a_prefix_in_merged_attention() -> None:
    mask = {"causal": True, "prefix": True, "window": None}
    own = {"name": "merged_attention", "mask": mask}
    patch = {
        "bridge": {"name": "separate_keys"},
        "decoder": {"cycle": [], "layer": {"branches": {"self_attention": own, "cross_attention": None}}},
    }
    model = pairform.build(pairform.load_spec(TINY, patch), seed=0)
    read, written = torch.randint(3, 48, (2, 5)), torch.randint(3, 48, (2, 6))
    whole, cache = model(read, decoder_input_ids=written, prefix_lengths=torch.tensor([4, 2])).logits, pairform.Cache()
    first = model(read, decoder_input_ids=written[:, :4], prefix_lengths=torch.tensor([4, 2]), cache=cache).logits
    steps = [model(read, decoder_input_ids=token, cache=cache).logits for token in torch.split(written[:, 4:], 1, 1)]
    torch.testing.assert_close(torch.cat((first, *steps), 1), whole, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(whole, model(read, decoder_input_ids=written).logits)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ({"causal": False}, "mask.prefix: found true in a mask that is not causal"),
        ({"window": [4, 0]}, r"mask.window: found \[4, 0\] with a prefix, expected 1 or more to the right"),
    ],
)
def test_masks_that_leave_a_prefix_nothing_are_refused(mask: dict[str, Any], message: str) -> None:
    with pytest.raises(pairform.PairformError, match=message):
        model_with(mask={"causal": True, "prefix": True} | mask)


def test_a_prefix_that_would_not_be_read_is_refused() -> None:
    model = model_with()
    with pytest.raises(pairform.PairformError, match="which cannot do pictures or prefixes in a causal stack"):
        model_with(mask={"causal": True, "prefix": True}, kernel="flash")
    encoder = {"encoder": {"cycle": [], "layer": {"branches": {"self_attention": {"mask": {"causal": True, "prefix": True}}}}}}
    with pytest.raises(pairform.PairformError, match="encoder: found a mask with a prefix"):
        pairform.load_spec(TINY, encoder)
    with pytest.raises(pairform.PairformError, match="a prefix for a model that reads none"):
        model_with(mask={"causal": True})(IDS, prefix_lengths=LENGTHS)
    with pytest.raises(pairform.PairformError, match="one document per row"):
        model(IDS, prefix_lengths=LENGTHS, segment_ids=torch.ones_like(IDS))
    cache = pairform.Cache()
    model(IDS, cache=cache)
    with pytest.raises(pairform.PairformError, match="a prefix after 9 cached tokens"):
        model(IDS, prefix_lengths=LENGTHS, cache=cache)


def test_a_decoder_whose_tokens_see_later_ones_keeps_nothing() -> None:
    """What it says of a token changes with each that follows, so a cache would hold what is no longer true."""
    model = model_with(mask={"causal": False})
    check_writing(model)
    with pytest.raises(pairform.PairformError, match=r"cache: found a decoder whose tokens attend to later ones"):
        model.generate(IDS, MASK, max_new_tokens=2, cache=pairform.Cache())
