"""`load(..., quantise="int8")`: how near it is to the whole weights, what it holds, and what it refuses."""

import copy
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import pairform
from pairform import Model, PairformError
from pairform.assemblies.checkpoints.transforms import quantisation
from pairform.blocks.functional.processor import multiplies_int8

BOUND = 0.02
"""Of the relative error of quantised weights: half a step of 1/127 of a row's largest value, spread evenly, is
1 / (127 sqrt 12) = 0.0023 of that value, and in rows of normal weights the largest is three to four deviations."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unequal pair with weights large enough to matter, in bfloat16."""
    width = {"layer": {"branches": {"feed_forward": {"hidden": 80}}}}
    spec = pairform.patch(
        pairform.load_spec("t5gemma-s-s"),
        {
            "vocabulary": 200,
            "initializer_range": 1.0,
            "encoder": {"width": 48, "depth": 2, **width},
            "decoder": {"width": 32, "depth": 2, **width},
        },
    )
    folder = tmp_path_factory.mktemp("quantised") / "model"
    pairform.save(pairform.build(spec, dtype=torch.bfloat16, seed=1), folder)
    return folder


@pytest.fixture
def whole(folder: Path) -> Model:
    return pairform.load(folder)


@pytest.fixture
def model(folder: Path) -> Model:
    return quantised(folder)


def quantised(folder: Path, dtype: torch.dtype | None = None, scheme: str = "int8") -> Model:
    if find_spec("torchao") is None:
        pytest.skip("pairform[quantise] is not installed")
    return pairform.load(folder, quantise=scheme, dtype=dtype)


def tokens(batch: int, length: int, seed: int = 0) -> Tensor:
    return torch.randint(3, 200, (batch, length), generator=torch.Generator().manual_seed(seed))


def weight_of(layer: nn.Module) -> Any:
    """torchao's tensors have no types."""
    return layer.weight


def linear_layers(model: Model) -> dict[str, nn.Linear]:
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}


def relative(found: Tensor, expected: Tensor) -> float:
    return float(((found.double() - expected.double()).norm() / expected.double().norm()).detach())


def dequantised(model: Model, like: Model) -> Model:
    """`like` with the weights that the quantised `model` stands for."""
    with torch.no_grad():
        for (_, own), (_, other) in zip(linear_layers(like).items(), linear_layers(model).items(), strict=True):
            own.weight.copy_(weight_of(other).dequantize())
    return like


def test_linear_weights_are_eight_bits_and_the_rest_is_what_it_was(model: Model, whole: Model) -> None:
    layers = linear_layers(model)
    assert len(layers) == 2 * 7 + 2 * 11
    for name, layer in layers.items():
        assert weight_of(layer).qdata.dtype == torch.int8
        assert relative(weight_of(layer).dequantize(), weight_of(whole.get_submodule(name))) < BOUND
    weights = {f"{name}.weight" for name in layers}
    for name, parameter in whole.named_parameters():
        assert name in weights or torch.equal(model.get_parameter(name), parameter), name


def test_the_logits_are_near(model: Model, whole: Model) -> None:
    with torch.no_grad():
        near, exact = (each(tokens(4, 24), decoder_input_ids=tokens(4, 16, seed=1)).logits for each in (model, whole))
    assert near is not None
    assert exact is not None
    assert relative(near, exact) < 0.1
    assert (near.argmax(-1) == exact.argmax(-1)).float().mean() > 0.9
    divergence = functional.kl_div(near.log_softmax(-1), exact.log_softmax(-1), log_target=True, reduction="none").sum(-1)
    assert divergence.mean() < 0.05


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("length", [1, 8, 9, 40])
def test_the_product_is_that_of_the_dequantised_weight(folder: Path, dtype: torch.dtype, length: int) -> None:
    model = quantised(folder, dtype)
    plain = dequantised(model, pairform.load(folder, dtype=torch.float64))
    name = "encoder.layers.0.feed_forward.block.down_proj"
    layer, expected = model.get_submodule(name), plain.get_submodule(name)
    given = torch.randn(1, length, 80, generator=torch.Generator().manual_seed(3)).to(dtype)
    with torch.no_grad():
        found = layer(given)
        assert found.dtype == dtype
        assert (
            relative(found, expected(given.double())) < {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1e-2}[dtype]
        )


def test_a_product_in_float16_overflows_only_where_its_result_does(folder: Path) -> None:
    """Steps of the weight are up to 127, and their scale is small."""
    layer = quantised(folder, torch.float16).get_submodule("encoder.layers.0.feed_forward.block.down_proj")
    weight = weight_of(layer)
    given = (80 * weight.qdata[:1].sign()).to(torch.float16)
    with torch.no_grad():
        found = layer(given)
    expected = given.double() @ (weight.qdata.double() * weight.scale.double().view(-1, 1)).T
    assert relative(found, expected) < 2e-3


def test_it_runs_and_passes_gradients_in_a_dtype_it_is_converted_to(model: Model) -> None:
    model.to(torch.float16)
    embeds = torch.ones(1, 5, 48, dtype=torch.float16, requires_grad=True)
    output = model(inputs_embeds=embeds, decoder_input_ids=tokens(1, 3))
    assert output.logits is not None
    assert output.logits.dtype == torch.float16
    (gradient,) = torch.autograd.grad(output.logits.square().mean(), embeds)
    assert gradient.isfinite().all()
    assert gradient.any()


def test_gradients_pass_through_the_weights_and_not_into_them(folder: Path) -> None:
    """What stands before the encoder gets the gradient that the dequantised weights would give."""
    model = quantised(folder, torch.float32)
    gradients: list[Tensor] = []
    for each in (model, dequantised(model, pairform.load(folder, dtype=torch.float32))):
        embeds = torch.randn(2, 12, 48, generator=torch.Generator().manual_seed(5)).requires_grad_()
        loss = each(inputs_embeds=embeds, labels=tokens(2, 6)).loss
        assert loss is not None
        gradients += torch.autograd.grad(loss, embeds)
    assert relative(*gradients) < 1e-5
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_it_writes_with_and_without_a_cache_as_the_dequantised_weights_do(folder: Path) -> None:
    model = quantised(folder, torch.float32)
    written = model.generate(tokens(2, 12), max_new_tokens=12)
    plain = dequantised(model, pairform.load(folder, dtype=torch.float32))
    assert torch.equal(written, plain.generate(tokens(2, 12), max_new_tokens=12))
    with torch.no_grad():
        ahead = model(tokens(2, 12), decoder_input_ids=written[:, :-1]).logits
    assert ahead is not None
    assert torch.equal(ahead.argmax(-1), written[:, 1:])


@pytest.mark.parametrize("scheme", ["int8", "int8_dynamic"])
def test_it_compiles(folder: Path, scheme: str) -> None:
    """In bfloat16, with few tokens and with many: the products differ."""
    layer = quantised(folder, scheme=scheme).get_submodule("encoder.layers.0.feed_forward.block")
    compiled = torch.compile(layer, dynamic=False)
    for length in (2, 20):
        hidden = torch.randn(1, length, 48, generator=torch.Generator().manual_seed(length)).bfloat16()
        with torch.no_grad():
            assert relative(compiled(hidden, None), layer(hidden, None)) < 2e-2


def test_parameters_count_and_move_as_before(model: Model, whole: Model) -> None:
    def counts(each: Model) -> dict[str, int]:
        return {name: parameter.numel() for name, parameter in each.named_parameters()}

    assert counts(model) == counts(whole)
    moved = copy.deepcopy(model).float()
    assert moved.generate(tokens(1, 5), max_new_tokens=2).shape == (1, 3)


def test_a_width_that_sixteen_does_not_divide_stays_whole(folder: Path, tmp_path: Path) -> None:
    """torch's product of int8 weights reads past the end of such rows."""
    spec = pairform.patch(pairform.load(folder).spec, {"encoder": {"width": 40}})
    pairform.save(pairform.build(spec, dtype=torch.bfloat16, seed=0), tmp_path / "odd")
    model = quantised(tmp_path / "odd")
    whole = {name for name, layer in linear_layers(model).items() if type(layer.weight) is nn.Parameter}
    assert whole == {name for name, layer in linear_layers(model).items() if layer.in_features == 40}
    assert len(whole) == 2 * 5 + 2 * 2


def test_the_head_and_the_pictures_of_a_classifier(folder: Path, tmp_path: Path) -> None:
    document = pairform.load(folder).spec.document() | {"head": {"name": "token_classification", "labels": 3}}
    pairform.save(pairform.build(pairform.load_spec(document), seed=0), tmp_path / "classifier")
    model = quantised(tmp_path / "classifier")
    assert type(model.get_submodule("head.proj")) is nn.Linear
    logits = model(tokens(1, 4)).logits
    assert logits is not None
    assert logits.shape == (1, 4, 3)


def test_it_neither_trains_nor_saves(model: Model, tmp_path: Path) -> None:
    with pytest.raises(PairformError, match=r"train: found quantised weights.*without quantise"):
        model.train()
    assert not any(module.training for module in model.modules())
    for format_ in ("pairform", "transformers"):
        with pytest.raises(PairformError, match=r"model: found quantised weights.*without quantise"):
            pairform.save(model, tmp_path / "saved", format=format_)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("scheme", ["int4", "", 8, True])
def test_an_unknown_scheme_is_an_error(folder: Path, scheme: object) -> None:
    with pytest.raises(PairformError, match=r"quantise: found .*, expected int8"):
        pairform.load(folder, quantise=scheme)  # type: ignore[arg-type]


def test_without_torchao_it_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(PairformError, match=r"Run: pip install pairform\[quantise\]"):
        pairform.load(folder, quantise="int8")


@pytest.fixture(params=[True, False], ids=["integers", "float32"])
def exact_sums(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on CPUs that multiply int8 with exact sums, if this is one, and as on the others."""
    if request.param and not multiplies_int8("cpu"):
        pytest.skip("this CPU multiplies int8 with sums that overflow")
    monkeypatch.setattr(quantisation, "multiplies_int8", lambda device: request.param)


@pytest.mark.usefixtures("exact_sums")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("length", [1, 8, 40, 1100])
def test_a_dynamic_product_is_that_of_quantised_tokens(folder: Path, dtype: torch.dtype, length: int) -> None:
    layer = quantised(folder, dtype, "int8_dynamic").get_submodule("encoder.layers.0.feed_forward.block.down_proj")
    weight = weight_of(layer)
    given = torch.randn(2, length, 80, generator=torch.Generator().manual_seed(3)).to(dtype)
    given[0, 0] = 0
    given[1, 0, :5] *= 100
    with torch.no_grad():
        found = layer(given)
    scale = given.double().abs().amax(-1, keepdim=True).float() / 127
    steps = (given / scale.clamp_min(1e-30)).round().clamp(-127, 127).double()
    expected = steps @ weight.qdata.double().T * weight.scale.double().view(-1) * scale
    assert found.dtype == dtype
    assert relative(found, expected) < {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 5e-3}[dtype]
    assert not found[0, 0].any()
    assert relative(found, given.double() @ weight.dequantize().double().T) < BOUND


@pytest.mark.usefixtures("exact_sums")
def test_dynamic_logits_are_near_and_tokens_do_not_depend_on_others(folder: Path, whole: Model) -> None:
    model = quantised(folder, torch.float32, "int8_dynamic")
    source, target = tokens(4, 24), tokens(4, 16, seed=1)
    with torch.no_grad():
        near, exact = (each(source, decoder_input_ids=target).logits for each in (model, whole.float()))
        layer = model.get_submodule("encoder.layers.0.feed_forward.block.down_proj")
        given = torch.randn(6, 80)
        assert torch.equal(layer(given)[2:3], layer(given[2:3]))
    assert near is not None
    assert exact is not None
    assert relative(near, exact) < 0.1
    assert (near.argmax(-1) == exact.argmax(-1)).float().mean() > 0.9
    assert model.generate(source, max_new_tokens=4).shape == (4, 5)


def test_a_dynamic_layer_refuses_gradients_and_other_devices(folder: Path) -> None:
    model = quantised(folder, torch.float32, "int8_dynamic")
    with pytest.raises(PairformError, match="needs a gradient"):
        model(inputs_embeds=torch.ones(1, 5, 48, requires_grad=True), decoder_input_ids=tokens(1, 3))
    layer: Any = model.get_submodule("encoder.layers.0.feed_forward.block.down_proj")
    with pytest.raises(PairformError, match="int8_dynamic on xpu"):
        layer.check_apply(lambda tensor: SimpleNamespace(device=torch.device("xpu")))
