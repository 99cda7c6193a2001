"""A model is saved out of what leaves its weights and names alone; anything else around or inside it is refused
before a byte is written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn.utils import parametrizations

import pairform
from tests.broken.damage import contents, refused

PATCH = {"vocabulary": 96, "encoder": {"depth": 1, "width": 32}, "decoder": {"depth": 1, "width": 32}}


def model() -> pairform.Model:
    return pairform.build(pairform.load_spec("t5gemma-s-s", PATCH), seed=0)


def compiled(module: nn.Module) -> nn.Module:
    made: Any = torch.compile(module)
    assert isinstance(made, nn.Module)
    return made


def layers_wrapped(wrap: Callable[[nn.Module], Any]) -> pairform.Model:
    made = model()
    assert made.decoder is not None
    made.decoder.layers[0] = wrap(made.decoder.layers[0])
    return made


TRANSPARENT: dict[str, Callable[[], nn.Module]] = {
    "compiled": lambda: compiled(model()),
    "data parallel": lambda: nn.DataParallel(model()),
    "compiled data parallel": lambda: compiled(nn.DataParallel(model())),
    "a compiled layer": lambda: layers_wrapped(compiled),
    "a layer that recomputes": lambda: layers_wrapped(checkpoint_wrapper),
}


@pytest.mark.parametrize("kind", TRANSPARENT)
def test_a_wrapped_model_is_saved_as_itself(kind: str, tmp_path: Path) -> None:
    pairform.save(TRANSPARENT[kind](), tmp_path / "out")
    saved, plain = pairform.load(tmp_path / "out"), model()
    assert pairform.diff(saved.spec, plain.spec) == {}
    others = dict(plain.named_parameters())
    assert all(tensor.equal(others.pop(name)) for name, tensor in saved.named_parameters())
    assert others == {}


class Adapted(nn.Module):
    """A projection as PEFT's LoRA has it: the layer as `base_layer`, beside two narrow ones of the adapter's name."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base_layer = base
        self.lora_A = nn.ModuleDict({"default": nn.Linear(base.in_features, 4, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(4, base.out_features, bias=False)})


class PeftModel(nn.Module):
    """What PEFT's get_peft_model returns: `base_model.model` is the model, and what it lacks itself is looked up there."""

    def __init__(self, adapted: pairform.Model) -> None:
        super().__init__()
        self.base_model = nn.Module()
        self.base_model.model = adapted
        self.spec = adapted.spec

    def merge_and_unload(self) -> nn.Module:
        raise NotImplementedError


def with_projection(change: Callable[[Any], nn.Module]) -> pairform.Model:
    made = model()
    block = made.get_submodule("decoder.layers.0.self_attention.block")
    block.q_proj = change(block.q_proj)
    return made


def untied() -> pairform.Model:
    made = model()
    made.head.weight = nn.Parameter(torch.zeros(96, 32))
    return made


def another_shape() -> pairform.Model:
    made = model()
    made.get_submodule("decoder.norm").weight = nn.Parameter(torch.ones(31))
    return made


def without_norm() -> pairform.Model:
    made = model()
    del made.get_submodule("encoder.norm").weight
    return made


def tied_by_hand() -> pairform.Model:
    made = model()
    made.get_submodule("decoder.norm").weight = made.get_submodule("encoder.norm").weight
    return made


REFUSED: dict[str, tuple[Callable[[], object], tuple[str, ...]]] = {
    "an adapted model": (lambda: PeftModel(with_projection(Adapted)), ("PeftModel", "merge_and_unload()")),
    "an adapter inside": (lambda: with_projection(Adapted), ("q_proj.base_layer.weight", "merge_and_unload()")),
    "a parametrisation": (
        lambda: with_projection(parametrizations.weight_norm),
        ("q_proj.parametrizations.weight", "remove_parametrizations"),
    ),
    "a module around it": (lambda: nn.Sequential(model()), ("Sequential", "its module '0'")),
    "no model": (lambda: nn.Linear(2, 2), ("a Linear", "a pairform model")),
    "no module": (lambda: {"weight": torch.ones(2)}, ("a dict", "a pairform model")),
    "a tied head with its own weight": (untied, ("head.weight", "does not have")),
    "a tensor of another shape": (another_shape, ("decoder.norm.weight", "[31]", "[32]")),
    "tensors tied by hand": (tied_by_hand, ("decoder.norm.weight", "the same tensor as encoder.norm.weight", "Clone")),
    "a tensor too few": (without_norm, ("encoder.norm.weight", "no such tensor")),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_the_specs_model_is_refused(kind: str, tmp_path: Path) -> None:
    make, words = REFUSED[kind]
    wrapped: Any = make()
    refused(lambda: pairform.save(wrapped, tmp_path / "new" / "out"), *words)
    if isinstance(wrapped, nn.Module):
        refused(lambda: pairform.carry(wrapped), *words)
    assert contents(tmp_path) == []


def test_a_compiled_model_is_carried_as_itself() -> None:
    carried, _ = pairform.carry(compiled(model()))
    others = dict(carried.named_parameters())
    assert all(tensor.equal(others[name]) for name, tensor in model().named_parameters())
