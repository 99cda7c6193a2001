"""Pictures reach a model at image tokens and nowhere else, and what does not fit is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import pairform
from pairform.assemblies.modeling.inputs import StackInputs
from tests.broken.damage import refused
from tests.small_vision import FIRST_WORD, IMAGE, TOKENS, document, pixels, text, with_pictures

ASSEMBLIES = ("encoder_decoder", "decoder_only", "encoder_only")
KERNELS = ("eager", "sdpa")


def hidden(model: pairform.Model, ids: Tensor, pictures: Tensor | None = None, **rest: Any) -> Tensor:
    """The last hidden states of the stack that reads pictures."""
    stack = model.encoder or model.decoder
    assert stack is not None
    with torch.no_grad():
        found: Tensor = stack(StackInputs(ids, pixel_values=pictures, **rest)).hidden
    return found


@pytest.mark.parametrize("assembly", ASSEMBLIES)
def test_pictures_change_the_output_through_image_tokens(assembly: str) -> None:
    model = pairform.build(document(assembly), seed=0)
    ids = with_pictures(text(), (0, 2), (1, 7))
    first, second = pixels(2), pixels(2)
    written = {"decoder_input_ids": text(2, 5)} if assembly == "encoder_decoder" else {}
    with torch.no_grad():
        found, other = (model(ids, pixel_values=pictures, **written) for pictures in (first, second))
        again = model(ids, pixel_values=first.clone(), **written)
    name = "last_hidden_state" if assembly == "encoder_only" else "logits"
    assert not torch.allclose(getattr(found, name), getattr(other, name), atol=1e-3)
    assert torch.equal(getattr(found, name), getattr(again, name))


def test_the_first_hidden_states_differ_from_those_of_the_text_only_at_image_tokens() -> None:
    model = pairform.build(document(), seed=0)
    assert model.encoder is not None
    ids = with_pictures(text(), (0, 2), (0, 8), (1, 10))
    pictures = pixels(3)
    with torch.no_grad():
        states = model.encoder(StackInputs(ids, pixel_values=pictures), hidden_states=True).hidden_states
        tower = model.get_submodule("encoder.vision.tower")
        seen = model.get_submodule("encoder.vision.projector")(tower(StackInputs(pictures)).hidden)
        words = model.encoder.embedding(ids)
    assert states is not None
    assert torch.equal(states[0][ids != IMAGE], words[ids != IMAGE])
    assert torch.equal(states[0][0, 2:6], seen[0])
    assert torch.equal(states[0][0, 8:12], seen[1])
    assert torch.equal(states[0][1, 10:14], seen[2])


@pytest.mark.parametrize("kernel", KERNELS)
def test_rows_with_several_pictures_and_with_none_equal_their_rows_alone(kernel: str) -> None:
    for assembly in ASSEMBLIES:
        model = pairform.build(document(assembly), seed=0)
        model.use_kernel(kernel)
        ids = with_pictures(text(4), (0, 1), (0, 7), (2, 9), (3, 0))
        pictures = pixels(4)
        whole = hidden(model, ids, pictures)
        alone = [(0, pictures[:2]), (1, None), (2, pictures[2:3]), (3, pictures[3:])]
        for row, own in alone:
            assert torch.allclose(whole[row : row + 1], hidden(model, ids[row : row + 1], own), atol=1e-5)


@pytest.mark.parametrize("assembly", ["encoder_decoder", "decoder_only"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(assembly: str, side: str) -> None:
    model = pairform.build(document(assembly), seed=0)
    ids = with_pictures(text(1, 9), (0, 3))
    pictures = pixels(1)
    padding = torch.zeros(1, 4, dtype=torch.long)
    padded = torch.cat((padding, ids) if side == "left" else (ids, padding), dim=1)
    found = hidden(model, padded, pictures, valid=padded != 0)
    own = found[:, 4:] if side == "left" else found[:, :9]
    assert torch.allclose(own, hidden(model, ids, pictures), atol=1e-5)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_causal_stack_sees_a_picture_both_ways_and_its_text_one_way(kernel: str) -> None:
    model = pairform.build(document("decoder_only"), seed=0)
    model.use_kernel(kernel)
    ids = with_pictures(text(1), (0, 3), (0, 9))
    pictures = pixels(2)
    before = hidden(model, ids, pictures)

    def changed(ids: Tensor, pictures: Tensor) -> list[bool]:
        moved: list[bool] = (hidden(model, ids, pictures) - before).abs().amax(-1).gt(1e-4)[0].tolist()
        return moved

    def move_the_last_token(_: object, __: object, projected: Tensor) -> None:
        projected[0, -1] += 1.0

    with model.get_submodule("decoder.vision.projector").register_forward_hook(move_the_last_token):
        assert changed(ids, pictures) == [False] * 3 + [True] * 11

    later = pictures.clone()
    later[1] += 1.0
    assert changed(ids, later) == [False] * 9 + [True] * 5

    words = ids.clone()
    words[0, 7] = FIRST_WORD if words[0, 7] != FIRST_WORD else FIRST_WORD + 1
    assert changed(words, pictures) == [False] * 7 + [True] * 7


def test_a_picture_attends_both_ways_in_a_causal_stack_and_text_does_not() -> None:
    model = pairform.build(document("decoder_only"), seed=0)
    ids = with_pictures(text(1), (0, 3), (0, 9))
    with torch.no_grad():
        weights = model(ids, pixel_values=pixels(2), output_attentions=True).attentions
    assert weights is not None
    reach = torch.ones(14, 14).tril()
    for start in (3, 9):
        reach[start : start + TOKENS, start : start + TOKENS] = 1
    for layer in weights:
        assert torch.equal(layer[0].gt(0).any(0), reach.bool())


@pytest.mark.parametrize("assembly", ["encoder_decoder", "decoder_only"])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("window", [None, 3])
def test_generation_is_the_same_with_and_without_a_cache(assembly: str, padded: bool, window: int | None) -> None:
    model = pairform.build(document(assembly, window=window), seed=0)
    ids = with_pictures(text(3), (0, 2), (2, 5), (2, 10))
    if padded:
        ids[0, :2] = ids[1, :6] = 0
    pictures = pixels(3)
    found, other, changed = (
        model.generate(ids, pixel_values=seen, max_new_tokens=32, use_cache=cached, eos_token_id=[])
        for seen, cached in ((pictures, True), (pictures, False), (pixels(3), True))
    )
    assert torch.equal(found, other)
    assert not torch.equal(found, changed)


@pytest.mark.parametrize("count", [0, 2])
def test_an_image_token_that_the_model_writes_holds_no_picture(count: int) -> None:
    model = pairform.build(document("decoder_only"), seed=0)
    ids = with_pictures(text(3), *[(0, 2), (2, 5)][:count])
    pictures = pixels(count) if count else None
    found, other = (
        model.generate(
            ids,
            pixel_values=pictures,
            max_new_tokens=32,
            use_cache=cached,
            eos_token_id=[],
            do_sample=True,
            temperature=50.0,
            seed=0,
        )
        for cached in (True, False)
    )
    assert found[:, -32:].eq(IMAGE).any()
    assert torch.equal(found, other)


@pytest.mark.parametrize("assembly", ASSEMBLIES)
def test_what_does_not_fit_is_refused(assembly: str) -> None:
    model = pairform.build(document(assembly), seed=0)
    ids = with_pictures(text(), (0, 2), (1, 7))

    def wrong(words: tuple[str, ...], ids: Tensor | None = ids, pictures: Tensor | None = None, **rest: Any) -> None:
        written = {"decoder_input_ids": text(2, 5)} if assembly == "encoder_decoder" else {}
        refused(lambda: model(ids, pixel_values=pictures, **written, **rest), *words)
        if assembly != "encoder_only" and not rest:
            refused(lambda: model.generate(ids, pixel_values=pictures, max_new_tokens=2), *words)

    wrong(("8 image tokens (6) without pictures", "pixel_values"))
    wrong(
        ("found 8 image tokens, expected 4: 4 for each of 1 pictures", "Put 4 copies of the image token 6"), pictures=pixels(1)
    )
    wrong(("found 8 image tokens, expected 12",), pictures=pixels(3))
    wrong(("found 0 image tokens, expected 8",), ids=text(), pictures=pixels(2))
    short = ids.clone()
    short[0, 2] = 9
    wrong(("found 7 image tokens, expected 8",), ids=short, pictures=pixels(2))
    wrong(("pixel_values", "[2, 3, 8, 16]", "[pictures, 3, 16, 16]"), pictures=pixels(2)[:, :, :8])
    wrong(("pixel_values", "[2, 3, 32, 32]", "[pictures, 3, 16, 16]"), pictures=torch.zeros(2, 3, 32, 32))
    wrong(("pixel_values", "[2, 1, 16, 16]", "[pictures, 3, 16, 16]"), pictures=pixels(2)[:, :1])
    wrong(("pixel_values", "[3, 16, 16]", "[pictures, channels, height, width]"), pictures=pixels(1)[0])
    wrong(("pixel_values", "[1, 2, 3, 16, 16]", "of the whole batch"), pictures=pixels(2)[None])
    wrong(("torch.uint8", "read_pictures"), pictures=pixels(2).byte())
    embeds = torch.randn(2, 14, 32)
    wrong(("pixel_values", "together with inputs_embeds", "input_ids"), ids=None, pictures=pixels(2), inputs_embeds=embeds)


@pytest.mark.parametrize("kernel", ["eager", "sdpa", "chunked"])
def test_a_batch_of_no_pictures_equals_text_alone(kernel: str) -> None:
    model = pairform.build(document("decoder_only"), seed=0)
    model.use_kernel(kernel)
    ids = text()
    with torch.no_grad():
        assert torch.allclose(model(ids, pixel_values=pixels(1)[:0]).logits, model(ids).logits, atol=1e-4)


@pytest.mark.parametrize("assembly", ASSEMBLIES)
def test_a_model_without_vision_takes_no_pictures_and_builds_nothing_for_them(assembly: str) -> None:
    model = pairform.build(document(assembly, pictures=False), seed=0)
    assert not [name for name, _ in model.named_modules() if "vision" in name]
    ids = with_pictures(text(), (0, 2))
    written = {"decoder_input_ids": text(2, 5)} if assembly == "encoder_decoder" else {}
    refused(lambda: model(ids, pixel_values=pixels(1), **written), "pictures for a stack without vision")
    model(ids, **written)  # its image token is a word like any other


def test_embeddings_are_taken_by_a_model_with_vision() -> None:
    model = pairform.build(document("decoder_only"), seed=0)
    assert model.decoder is not None
    ids = text()
    with torch.no_grad():
        assert torch.equal(model(ids).logits, model(inputs_embeds=model.decoder.embedding(ids)).logits)


def test_a_model_with_vision_is_saved_and_loaded(tmp_path: Path) -> None:
    for assembly in ASSEMBLIES:
        model = pairform.build(document(assembly), seed=0)
        pairform.save(model, tmp_path / assembly)
        loaded = pairform.load(tmp_path / assembly)
        ids = with_pictures(text(), (0, 2), (1, 7))
        pictures = pixels(2)
        assert torch.equal(hidden(model, ids, pictures), hidden(loaded, ids, pictures))
