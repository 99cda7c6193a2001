"""Fully sharded data parallelism (FSDP2, Zhao et al. 2023, arXiv 2304.11277): each process holds a slice of every parameter.

The processes read different rows of a batch. Before a layer runs, its parameters are gathered; afterwards they are freed, and
each gradient is summed over the processes and sliced.
"""

from collections import defaultdict
from functools import wraps
from typing import Any, Literal, get_args

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

from pairform.assemblies.modeling.frozen_weights import constant_weights
from pairform.assemblies.modeling.model import Model
from pairform.assemblies.modeling.processes import all_true, check_equal
from pairform.registry import InputError, Problem, shorten

Precision = Literal["float32", "bfloat16", "mixed"]
"""float32 or bfloat16 parameters; or float32 parameters that are gathered and multiplied in bfloat16, with gradients summed in
float32."""


def shard(model: Model, mesh: DeviceMesh | None, precision: Precision | None = None) -> Model:
    """Shard the parameters of a model over the processes of a mesh, in place.

    Each layer of the stacks is gathered separately. All else is gathered with the model: embeddings, final norms, the head, a
    vision tower (which runs only in the processes that have pictures), and parameters that several layers share.

    Args:
        model: with the same weights in every process; on the meta device, without weights.
        mesh: of one dimension, or of two: each row of processes holds one copy of the model. None, for one process, changes
            only the dtype.
        precision: None keeps the dtypes. "mixed" without a mesh needs autocast around the forward pass.

    Gradients are **summed** over the processes, not averaged: with `loss_tokens`, the number of labels of the whole batch, they
    are those of one process that reads the whole batch. An optimiser must be created after this call.

    Returns:
        The same model.

    Raises:
        InputError: the model is wrapped, sharded already, quantised or prepacked, or the mesh does not fit.
    """
    check_model(model)
    if precision is not None and precision not in get_args(Precision):
        raise InputError(Problem("precision", shorten(precision), f"one of {', '.join(get_args(Precision))}"))
    if precision is not None:
        model.to(torch.bfloat16 if precision == "bfloat16" else torch.float32)
    if mesh is None:
        return model
    check_mesh(mesh)
    options: dict[str, Any] = {"mesh": mesh}
    if precision == "mixed":
        options["mp_policy"] = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    shared = shared_by_layers(model)
    for stack in (model.encoder, model.decoder):
        for layer in () if stack is None else stack.layers:
            fully_shard(layer, ignored_params=shared, **options)
    # What layers share belongs to the model's own group, which looks for parameters outside of the layers only.
    model.shared = nn.ParameterList(shared)
    fully_shard(model, **options)
    del model.shared
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo has no other
    wrapped: Any = model
    model.register_forward_pre_hook(lambda *_: wrapped.reshard(), prepend=True)
    model.register_forward_hook(lambda *_: None if torch.is_grad_enabled() else wrapped.reshard())
    gather_to_generate(wrapped, mesh)
    return model


def check_model(model: object) -> None:
    """Raise `InputError` for what cannot be sharded."""
    if not isinstance(model, Model):
        remedy = "Shard the model itself; the sharded model can be wrapped."
        raise InputError(Problem("model", f"a {type(model).__qualname__}", "a pairform model", remedy))
    if (problem := constant_weights(model, "model", why=", which cannot be sharded")) is not None:
        raise InputError(problem)
    for name, parameter in model.named_parameters():
        if hasattr(parameter, "full_tensor"):
            raise InputError(Problem(f"model: {name}", "a tensor sharded over processes", "a model that is not sharded yet"))
        if parameter.ndim == 0:
            raise InputError(Problem(f"model: {name}", "a parameter without dimensions", "at least one dimension, as `[1]`"))
    if any(isinstance(module, FSDPModule) for module in model.modules()):
        raise InputError(Problem("model", "a module wrapped by fully_shard", "a model that is not sharded yet"))


def check_mesh(mesh: object) -> None:
    if not isinstance(mesh, DeviceMesh):
        raise InputError(
            Problem("mesh", shorten(mesh), "a DeviceMesh", "torch.distributed.device_mesh.init_device_mesh makes one.")
        )
    if mesh.ndim not in (1, 2) or (mesh.ndim == 2 and mesh.mesh_dim_names is None):
        found = f"{mesh.ndim} dimensions" + ("" if mesh.mesh_dim_names else " without names")
        raise InputError(Problem("mesh", found, 'one dimension, or two with names: ("replicate", "shard")'))
    if mesh.get_coordinate() is None:
        raise InputError(Problem("mesh", "a mesh without this process", "a mesh of all processes"))
    if mesh.size() != distributed.get_world_size():
        raise InputError(Problem("mesh", f"{mesh.size()} processes", f"all {distributed.get_world_size()} processes"))


def shared_by_layers(model: Model) -> set[nn.Parameter]:
    """The parameters that are in several layers, or in a layer and elsewhere, such as T5's position tables."""
    holders: dict[nn.Parameter, set[str]] = defaultdict(set)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        stack, *inner = name.split(".")
        in_layer = stack in ("encoder", "decoder") and inner[0] == "layers"
        holders[parameter].add(f"{stack}.{inner[1]}" if in_layer else "")
    return {parameter for parameter, layers in holders.items() if len(layers) > 1}


def gather_to_generate(model: Any, mesh: DeviceMesh) -> None:
    """Let `model.generate` gather what the model's forward pass gathers, and go on until every process has finished.

    Every process must call it, with inputs of the same kind and the same largest number of new tokens.
    """
    register_fsdp_forward_method(model, "generate")
    generate = model.generate
    model.all_finished = lambda finished: all_true(finished, mesh)
    model.agree = lambda names, numbers: check_equal(names, numbers, mesh)

    @wraps(generate)
    def gathered(*args: Any, **options: Any) -> Tensor:
        if options.get("compile"):
            remedy = "Save the model, load it in one process, and generate there."
            raise InputError(Problem("compile", "compilation of a sharded model's steps", "compile=False", remedy))
        check_equal("encoder_outputs", (int(options.get("encoder_outputs") is not None),), mesh)
        try:
            generated: Tensor = generate(*args, **options)
            return generated
        except BaseException:
            if hasattr(model, "reset_iter_state"):  # torch 2.13
                model.reset_iter_state()
            raise
        finally:
            model.reshard()

    model.generate = gathered
