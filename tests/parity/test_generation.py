"""Written tokens are transformers' tokens: greedy or drawn, cached or not, padded on either side."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

import pairform
from pairform.assemblies.generation.sampling import sampling_processors
from tests.parity.compare import FLOAT32, PADDINGS, Batch, batch, create, error, random_gemma2, random_t5gemma, reference

NEW = 32
"""Tokens to write: many times the windows of the tests' models."""
NEVER: tuple[int, ...] = ()
"""No end tokens, where all rows should go on."""


def decoder_only(folder: Path, **config: Any) -> tuple[pairform.Model, Any]:
    """An own head, since a tied one of wide weights mostly repeats what it reads."""
    create(folder, "Gemma2ForCausalLM", **config | {"tie_word_embeddings": False})
    return pairform.load(folder), reference(folder)


def encoder_decoder(folder: Path, **config: Any) -> tuple[pairform.Model, Any]:
    create(folder, "T5GemmaForConditionalGeneration", **config | {"tie_word_embeddings": False})
    return pairform.load(folder), reference(folder)


def cacheable(stack: dict[str, Any]) -> dict[str, Any]:
    """transformers' cache of a window of one token keeps all tokens (a slice from -0), so windows here begin at two."""
    return stack | {"sliding_window": max(stack["sliding_window"], 2)}


def left(read: Batch) -> Batch:
    """The same rows with their padding on the left."""
    order = read.mask.argsort(dim=1, stable=True)
    return Batch(read.ids.gather(1, order), read.mask.gather(1, order))


@pytest.mark.parametrize("seed", range(6))
def test_greedy_gemma2(seed: int, tmp_path: Path) -> None:
    ours, theirs = decoder_only(tmp_path / "model", seed=seed, **cacheable(random_gemma2(seed)))
    read = batch(seed, padding=[None, "left"][seed % 2])
    expected = theirs.generate(**read.inputs, max_new_tokens=NEW, do_sample=False)
    for use_cache in (True, False):
        assert torch.equal(ours.generate(**read.inputs, max_new_tokens=NEW, use_cache=use_cache), expected)


@pytest.mark.parametrize("seed", range(9))
def test_greedy_t5gemma(seed: int, tmp_path: Path) -> None:
    config = random_t5gemma(seed)
    ours, theirs = encoder_decoder(tmp_path / "model", seed=seed, **config | {"decoder": cacheable(config["decoder"])})
    read = batch(seed, padding=PADDINGS[seed % 3], vocabulary=80)
    expected = theirs.generate(**read.inputs, max_new_tokens=NEW, do_sample=False)
    for use_cache in (True, False):
        assert torch.equal(ours.generate(**read.inputs, max_new_tokens=NEW, use_cache=use_cache), expected)


def test_without_a_mask_pad_tokens_are_padding(tmp_path: Path) -> None:
    """As in transformers, except that its cross-attention would read the padding."""
    ours, theirs = decoder_only(tmp_path / "gemma2")
    read = batch(padding="left")
    expected = theirs.generate(read.ids, max_new_tokens=NEW, do_sample=False)
    for use_cache in (True, False):
        assert torch.equal(ours.generate(read.ids, max_new_tokens=NEW, use_cache=use_cache), expected)
    ours, theirs = encoder_decoder(tmp_path / "t5gemma")
    read = batch(padding="right")
    expected = theirs.generate(**read.inputs, max_new_tokens=NEW, do_sample=False)
    for use_cache in (True, False):
        assert torch.equal(ours.generate(read.ids, max_new_tokens=NEW, use_cache=use_cache), expected)


def test_right_padded_prompts_go_on_like_left_padded_ones(tmp_path: Path) -> None:
    ours, theirs = decoder_only(tmp_path / "model")
    read = batch(padding="right")
    length = read.ids.shape[1]
    expected = theirs.generate(**left(read).inputs, max_new_tokens=NEW, do_sample=False)
    for use_cache in (True, False):
        written = ours.generate(**read.inputs, max_new_tokens=NEW, use_cache=use_cache)
        assert torch.equal(written[:, length:], expected[:, length:])
        assert torch.equal(written[:, :length], read.ids)


@pytest.mark.parametrize("row", range(3))
def test_a_batch_writes_what_its_rows_write_alone(row: int, tmp_path: Path) -> None:
    ours, _ = decoder_only(tmp_path / "model")
    read = batch(padding="left")
    together = ours.generate(**read.inputs, max_new_tokens=NEW, eos_token_id=NEVER)
    alone = ours.generate(read.ids[row, read.real[row]][None], max_new_tokens=NEW, eos_token_id=NEVER)
    assert torch.equal(together[row, read.ids.shape[1] :], alone[0, -NEW:])


@pytest.mark.parametrize("padding", [None, "left"])
def test_decoder_prompts(padding: str | None, tmp_path: Path) -> None:
    ours, theirs = encoder_decoder(tmp_path / "model")
    read, prompt = batch(padding="right"), batch(1, length=9, padding=padding)
    prompt.ids[0, 0] = 2  # transformers puts a start token before prompts that have none
    inputs = {**read.inputs, **prompt.decoder_inputs}
    expected = theirs.generate(**inputs, max_new_tokens=NEW, do_sample=False)
    for use_cache in (True, False):
        assert torch.equal(ours.generate(**inputs, max_new_tokens=NEW, use_cache=use_cache), expected)


@pytest.mark.parametrize("build", [decoder_only, encoder_decoder])
def test_rows_end_at_any_of_several_tokens(build: Any, tmp_path: Path) -> None:
    ours, theirs = build(tmp_path / "model")
    read = batch(rows=4, padding="left")
    free = ours.generate(**read.inputs, max_new_tokens=NEW, eos_token_id=NEVER)[:, -NEW:]
    ends = sorted({int(free[0, 4]), int(free[1, 9]), int(free[2, 20])})
    expected = theirs.generate(**read.inputs, max_new_tokens=NEW, do_sample=False, eos_token_id=ends)
    written = ours.generate(**read.inputs, max_new_tokens=NEW, eos_token_id=ends)
    assert torch.equal(written, expected)
    assert (written == 0).any(dim=1).sum() >= 3


@pytest.mark.parametrize("build", [decoder_only, encoder_decoder])
def test_generation_stops_when_every_row_has_ended(build: Any, tmp_path: Path) -> None:
    ours, theirs = build(tmp_path / "model")
    read = batch(rows=1)
    free = ours.generate(**read.inputs, max_new_tokens=NEW, eos_token_id=NEVER)
    end = int(free[0, -20])
    expected = theirs.generate(**read.inputs, max_new_tokens=NEW, do_sample=False, eos_token_id=end)
    written = ours.generate(**read.inputs, max_new_tokens=NEW, eos_token_id=end)
    assert torch.equal(written, expected)
    assert written.shape[1] < free.shape[1]


@pytest.mark.parametrize("padding", ["left", "right"])
def test_a_cache_can_be_kept_and_continued(padding: str, tmp_path: Path) -> None:
    """Written in three calls, the second one with a longer mask than the first."""
    ours, _ = decoder_only(tmp_path / "gemma2")
    read = batch(padding="left")
    whole = ours.generate(**read.inputs, max_new_tokens=NEW, eos_token_id=NEVER)
    cache = pairform.Cache()
    written, mask = read.ids, read.mask
    for count in (1, 11, 20):
        written = ours.generate(written, mask, max_new_tokens=count, eos_token_id=NEVER, cache=cache)
        assert cache.length == written.shape[1] - 1
        mask = torch.nn.functional.pad(mask, (0, count), value=1)
    assert torch.equal(written, whole)

    ours, _ = encoder_decoder(tmp_path / "t5gemma")
    read = batch(padding=padding)
    whole = ours.generate(**read.inputs, max_new_tokens=NEW, eos_token_id=NEVER)
    encoded = ours(**read.inputs, decoder_input_ids=read.ids[:, :1])
    cache, part = pairform.Cache(), None
    for count in (1, 11, 20):
        part = ours.generate(
            attention_mask=read.mask,
            encoder_outputs=encoded,
            decoder_input_ids=part,
            max_new_tokens=count,
            eos_token_id=NEVER,
            cache=cache,
        )
    assert part is not None
    assert torch.equal(part, whole)


@pytest.mark.parametrize("build", [decoder_only, encoder_decoder])
def test_a_cache_gives_the_logits_of_a_pass_without(build: Any, tmp_path: Path) -> None:
    """Also where several tokens come at once after the first."""
    ours, _ = build(tmp_path / "model")
    read, cache = batch(length=20), pairform.Cache()
    source = {} if ours.encoder is None else {"encoder_outputs": torch.randn(3, 6, 32)}
    name = "input_ids" if ours.encoder is None else "decoder_input_ids"
    with torch.no_grad():
        whole = ours(**{name: read.ids}, **source).logits
        for end in (7, 8, 9, 15, 20):
            begin = cache.length
            got = ours(**{name: read.ids[:, begin:end]}, **source, cache=cache).logits
            assert error(got, whole[:, begin:end]) <= FLOAT32


@pytest.mark.parametrize(
    "filters",
    [
        {},
        {"temperature": 0.3},
        {"top_k": 1},
        {"top_k": 5},
        {"top_k": 1000},
        {"top_p": 0.05},
        {"top_p": 0.5},
        {"top_p": 0.8},
        {"top_p": 1.0},
        {"temperature": 1.7, "top_k": 20, "top_p": 0.6},
    ],
)
def test_sampling_filters(filters: dict[str, Any]) -> None:
    logits = torch.randn(16, 96, generator=torch.Generator().manual_seed(0)) * 3
    logits[:, 10] = logits[:, 11]  # ties
    logits[0] = torch.full((96,), -torch.inf).index_fill(0, torch.arange(4), 0.0)  # quarters, to meet top_p exactly
    expected = logits
    for name, warper in (("temperature", TemperatureLogitsWarper), ("top_k", TopKLogitsWarper), ("top_p", TopPLogitsWarper)):
        if name in filters and not (name == "top_p" and filters[name] == 1.0):
            expected = warper(filters[name])(torch.empty(0), expected)
    scores = logits
    for processor in sampling_processors(
        pairform.GenerationSpec(do_sample=True, top_k=0).updated(pairform.GenerationSpec(**filters)), 1
    ):
        scores = processor(torch.empty(0), scores)
    assert torch.equal(scores, expected)


@pytest.mark.parametrize("build", [decoder_only, encoder_decoder])
def test_the_same_random_state_draws_the_tokens_that_transformers_draws(build: Any, tmp_path: Path) -> None:
    ours, theirs = build(tmp_path / "model")
    read = batch(padding="left")
    wanted = {"max_new_tokens": NEW, "do_sample": True, "temperature": 2.0, "top_k": 30, "top_p": 0.9}
    torch.manual_seed(3)
    expected = theirs.generate(**read.inputs, **wanted)
    torch.manual_seed(3)
    assert torch.equal(ours.generate(**read.inputs, **wanted), expected)


@pytest.mark.parametrize("build", [decoder_only, encoder_decoder])
def test_a_seed_repeats_a_draw_and_leaves_the_random_state_alone(build: Any, tmp_path: Path) -> None:
    ours, _ = build(tmp_path / "model")
    wanted = {"max_new_tokens": NEW, "do_sample": True, "temperature": 3.0}
    before = torch.get_rng_state()
    first, again, other = (ours.generate(batch().ids, **wanted, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert first.shape != other.shape or not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("build", [decoder_only, encoder_decoder])
def test_a_streamer_sees_every_token_as_it_is_written(build: Any, tmp_path: Path) -> None:
    ours, _ = build(tmp_path / "model")
    seen: list[Tensor] = []
    written = ours.generate(batch().ids, max_new_tokens=NEW, streamer=seen.append)
    assert torch.equal(torch.stack(seen, dim=1), written[:, -len(seen) :])
    assert written.shape[1] == len(seen) + (batch().ids.shape[1] if build is decoder_only else 1)


def test_a_model_in_training_generates_without_dropout_and_goes_on_training(tmp_path: Path) -> None:
    ours, theirs = encoder_decoder(tmp_path / "model", dropout_rate=0.5)
    expected = theirs.generate(**batch().inputs, max_new_tokens=8, do_sample=False)
    parts: Any = ours.train()
    frozen = parts.encoder.eval().training  # each part is left as it was
    assert torch.equal(ours.generate(**batch().inputs, max_new_tokens=8), expected)
    assert (parts.training, parts.encoder.training, parts.decoder.training) == (True, frozen, True)
