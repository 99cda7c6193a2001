"""`load(..., prepack=True)`: the same numbers from weights in oneDNN's blocks, and what such a model refuses."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import pairform
from pairform import Model, PairformError
from pairform.blocks.functional.processor import has_onednn, instructions, onednn_multiplies

pytestmark = pytest.mark.skipif(not has_onednn(), reason="torch has no oneDNN here")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unequal pair with weights large enough to matter, and biases."""
    layer = {"branches": {"feed_forward": {"hidden": 80, "bias": True}}}
    patch = {"width": 48, "depth": 2, "layer": layer}
    spec = pairform.patch(
        pairform.load_spec("t5gemma-s-s"),
        {"vocabulary": 200, "initializer_range": 1.0, "encoder": patch, "decoder": patch | {"width": 32}},
    )
    folder = tmp_path_factory.mktemp("prepacked") / "model"
    pairform.save(pairform.build(spec, seed=1), folder)
    return folder


def tokens(batch: int, length: int) -> Tensor:
    return torch.randint(3, 200, (batch, length), generator=torch.Generator().manual_seed(length))


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize(("batch", "length"), [(1, 1), (2, 9), (1, 300)])
def test_it_says_what_plain_weights_say(folder: Path, dtype: torch.dtype, bound: float, batch: int, length: int) -> None:
    if not onednn_multiplies(dtype):
        pytest.skip(f"oneDNN has no products of {dtype} with {instructions()}")
    plain, packed = (pairform.load(folder, dtype=dtype, prepack=prepack) for prepack in (False, True))
    given = {"input_ids": tokens(batch, length), "decoder_input_ids": tokens(batch, max(length // 2, 1))}
    with torch.no_grad():
        wanted, found = plain(**given).logits, packed(**given).logits
    assert (found - wanted).abs().max() <= bound * wanted.abs().max()


def test_it_writes_the_same_tokens_compiled_or_not(folder: Path) -> None:
    plain, packed = (pairform.load(folder, prepack=prepack) for prepack in (False, True))
    wanted = plain.generate(tokens(3, 12), max_new_tokens=9, eos_token_id=())
    for compiled, cached in ((False, True), (True, True), (False, False)):
        found = packed.generate(tokens(3, 12), max_new_tokens=9, eos_token_id=(), compile=compiled, use_cache=cached)
        assert torch.equal(found, wanted)


def test_a_gradient_reaches_what_stands_before(folder: Path) -> None:
    found = []
    for prepack in (False, True):
        model = pairform.load(folder, prepack=prepack)
        embeds = torch.ones(1, 5, 48, requires_grad=True)
        model(inputs_embeds=embeds, decoder_input_ids=tokens(1, 4)).logits.square().mean().backward()
        found.append(embeds.grad)
    assert found[0] is not None
    assert found[1] is not None
    assert torch.allclose(found[0], found[1], rtol=1e-4, atol=1e-5 * float(found[0].abs().max()))


def test_parameters_count_as_before(folder: Path) -> None:
    plain, packed = ({name: p.shape for name, p in load.named_parameters()} for load in both(folder))
    assert plain == packed


def both(folder: Path) -> list[Model]:
    return [pairform.load(folder, prepack=prepack) for prepack in (False, True)]


def test_it_neither_trains_nor_saves_nor_is_carried(folder: Path, tmp_path: Path) -> None:
    model = pairform.load(folder, prepack=True)
    with pytest.raises(PairformError, match=r"train: found prepacked weights.*without prepack"):
        model.train()
    with pytest.raises(PairformError, match=r"model: found prepacked weights.*without prepack"):
        pairform.save(model, tmp_path / "saved")
    with pytest.raises(PairformError, match=r"model: found prepacked weights.*without prepack"):
        pairform.carry(model, model.spec)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_computes_the_same(folder: Path, copied: Callable[[Model], Model]) -> None:
    model = pairform.load(folder, prepack=True)
    given = {"input_ids": tokens(2, 5), "decoder_input_ids": tokens(2, 3)}
    with torch.no_grad():
        expected = model(**given).logits
        again = copied(model)
        assert torch.equal(again(**given).logits, expected)
        assert torch.equal(model(**given).logits, expected)


@pytest.mark.parametrize("target", [torch.bfloat16, torch.float64, torch.device("meta")])
def test_it_is_converted_whole_or_not_at_all(folder: Path, target: torch.dtype | torch.device) -> None:
    model = pairform.load(folder, prepack=True)
    given = {"input_ids": tokens(2, 5), "decoder_input_ids": tokens(2, 3)}
    with torch.no_grad():
        expected = model(**given).logits
        if isinstance(target, torch.dtype) and onednn_multiplies(target):
            plain = pairform.load(folder).to(target)(**given).logits
            found = model.to(target)(**given).logits
            assert (found - plain).abs().max() <= 2e-2 * plain.abs().max()
            return
        with pytest.raises(PairformError, match="prepack: found"):
            model.to(target)
        assert {(tensor.dtype, tensor.device.type) for tensor in model.parameters()} == {(torch.float32, "cpu")}
        assert torch.equal(model(**given).logits, expected)


def test_a_dtype_is_prepacked_or_refused_with_what_this_processor_multiplies(folder: Path) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        if onednn_multiplies(dtype):
            assert (
                pairform.load(folder, prepack=True, dtype=dtype)(tokens(1, 3), decoder_input_ids=tokens(1, 2))
                .logits.isfinite()
                .all()
            )
            continue
        message = rf"prepack: found weights in {dtype}, which oneDNN does not multiply on this processor \({instructions()}\)"
        with pytest.raises(PairformError, match=rf"{message}, expected one of torch\.float32.*without prepack"):
            pairform.load(folder, prepack=True, dtype=dtype)


def test_what_it_cannot_do_is_said(folder: Path) -> None:
    with pytest.raises(PairformError, match=r"prepack: found weights in torch.float64"):
        pairform.load(folder, prepack=True, dtype=torch.float64)
    with pytest.raises(PairformError, match=r"prepack: found prepack with quantise='int8', expected one of them"):
        pairform.load(folder, prepack=True, quantise="int8")
    with pytest.raises(PairformError, match=r"prepack: found the device 'meta', expected a CPU"):
        pairform.load(folder, prepack=True, device="meta")
