"""A model out of its wrappers, and its tensors under the names of its spec."""

from collections.abc import Iterator

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from pairform.assemblies.modeling.build import parameters_of
from pairform.assemblies.modeling.frozen_weights import constant_weights
from pairform.assemblies.modeling.model import Model
from pairform.blocks.functional.dtypes import is_sharded
from pairform.registry import InputError, Problem

TRANSPARENT = ("_orig_mod.", "_checkpoint_wrapped_module.")
"""Parts of names that torch.compile and torch's activation checkpointing add below a layer that they wrap."""
MERGE = "Call merge_and_unload() on the adapted model and use the model that it returns."
GATHER = "Gather the full weights into an unsharded model first (torch.distributed.checkpoint.state_dict.get_model_state_dict)."


def unwrapped(model: object) -> Model:
    """`model` out of torch.compile, DataParallel and DistributedDataParallel, which do not change weights and names.

    Raises: InputError: it is in another wrapper, or is no model of pairform's.
    """
    inner = model
    while not isinstance(inner, Model):
        if isinstance(inner, DataParallel | DistributedDataParallel):
            inner = inner.module
        elif isinstance(inner, nn.Module) and "_orig_mod" in inner._modules:  # what torch.compile returns
            inner = inner._modules["_orig_mod"]
        else:
            raise InputError(Problem("model", f"a {type(inner).__qualname__}", "a pairform model", remedy_for(inner)))
    return inner


def remedy_for(wrapper: object) -> str:
    if not isinstance(wrapper, nn.Module):
        return ""
    if hasattr(wrapper, "merge_and_unload"):
        return MERGE
    if type(wrapper).__name__ == "FullyShardedDataParallel":
        return GATHER
    inside = [name for name, module in wrapper.named_modules() if isinstance(module, Model)]
    return f"Give the model inside it: its module {inside[0]!r}." if inside else ""


def spec_tensors(model: Model, *, sharded: bool = False) -> dict[str, nn.Parameter]:
    """The model's tensors by name. sharded: each process may hold a part of each.

    Raises: InputError: they are not exactly those of the model's spec.
    """
    model.share_embedding()
    if (problem := constant_weights(model, "model", instead="Use the folder it was loaded from, or load it again")) is not None:
        raise InputError(problem)
    tensors = {transparent(name): parameter for name, parameter in model.named_parameters()}
    problems = list(misfits(model, tensors, sharded))
    if problems:
        raise InputError(problems)
    return tensors


def transparent(name: str) -> str:
    for wrapper in TRANSPARENT:
        name = name.replace(wrapper, "")
    return name


def misfits(model: Model, tensors: dict[str, nn.Parameter], sharded: bool) -> Iterator[Problem]:
    wanted = {name: parameter.shape for name, parameter in parameters_of(model.spec).items()}
    for name, tensor in tensors.items():
        if not sharded and is_sharded(tensor):
            yield Problem(f"model: {name}", "a tensor sharded over processes", "whole tensors", GATHER)
        elif name not in wanted:
            yield Problem(
                f"model: {name}", "a tensor that the model's spec does not have", "only those of the spec", undo(name)
            )
        elif tuple(tensor.shape) != wanted[name]:
            yield Problem(f"model: {name}", f"the shape {list(tensor.shape)}", f"{list(wanted[name])}, as its spec says")
    every = {transparent(name): tensor for name, tensor in model.named_parameters(remove_duplicate=False)}
    for name in sorted(wanted.keys() - tensors.keys()):
        if name in every:
            other = next(known for known, tensor in tensors.items() if tensor is every[name])
            found = f"the same tensor as {other}, which the model's spec does not say"
            yield Problem(f"model: {name}", found, "a tensor of its own", "Clone one of the two, as they would be loaded.")
            continue
        yield Problem(f"model: {name}", "no such tensor", f"one of shape {list(wanted[name])}, as the model's spec says")


def undo(name: str) -> str:
    """How to remove what added a tensor of this name."""
    if ".parametrizations." in name:
        return "Remove the parametrisation first: torch.nn.utils.parametrize.remove_parametrizations."
    return MERGE if any(part in name for part in (".base_layer.", ".lora_", ".modules_to_save.", ".original_module.")) else ""
