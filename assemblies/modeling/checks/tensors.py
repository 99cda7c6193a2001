"""Validation of the tensors passed to a model, once per call, before anything is computed.

Types, dtypes and shapes are checked on every device. Values (IDs outside the vocabulary, mask values other than 0 and 1) are
checked on a CPU; on other devices, where that needs a synchronisation, only if the model's `check_inputs` is true.
"""

from collections.abc import Mapping
from typing import Any, NoReturn, TypeAlias

import torch
from torch import Tensor, nn

from pairform.assemblies.modeling.base import ModelParts
from pairform.assemblies.modeling.checks.arguments import described
from pairform.blocks.cache import Cache
from pairform.blocks.functional.dtypes import cast_to
from pairform.registry import InputError, Problem

Given: TypeAlias = Mapping[str, Any]
"""The arguments of a call that are not None, by name."""
IDS = (torch.int64, torch.int32)


def refuse(where: str, found: str, expected: str, remedy: str = "") -> NoReturn:
    raise InputError(Problem(where, found, expected, remedy))


def check_call(model: ModelParts, given: Given) -> Cache | None:
    """Check what needs no other argument; returns the cache.

    Raises:
        InputError: an argument that a model with one stack would ignore, a tensor on another device than the first weights (the
            meta device is not checked), or a cache or images of another type.
    """
    unread: tuple[str, ...] = () if model.encoder is not None and model.decoder is not None else ("decoder_", "encoder_outputs")
    if model.decoder is None:
        unread += ("cache",)
    weight = next(model.parameters()).device
    for name, value in given.items():
        if name.startswith(unread):
            expected = f"no such argument: it is {model.spec.assembly}"
            remedy = "It reads input_ids, attention_mask and so on."
            refuse(name, "an argument that this model does not read", expected, remedy)
        if isinstance(value, Tensor) and value.device != weight and "meta" not in (value.device.type, weight.type):
            refuse(name, f"a tensor on {value.device}", f"one on {weight}, as the model's weights", "`.to(device)` moves it.")
    if "pixel_values" in given:
        check_tensor("pixel_values", given["pixel_values"], "[pictures, channels, height, width]")
    if "token_type_ids" in given and next(iter(model.spec.stacks.values())).token_types is None:
        remedy = "`segment_ids` number the documents packed in a row."
        refuse("token_type_ids", "types for a stack without any", "a spec whose stack has token_types", remedy)
    cache = given.get("cache")
    if cache is not None and not isinstance(cache, Cache):
        refuse("cache", f"a value of type {type(cache).__name__}", "a pairform.Cache", "`Cache()` is an empty one.")
    return cache


def check_stack(
    model: ModelParts, part: str, given: Given, prefix: str, offset: int, shape: tuple[int, int] | None = None
) -> Any:
    """Check the input of one stack: the arguments whose names begin with `prefix`.

    Args:
        part: "encoder" or "decoder".
        offset: the number of cached tokens, which masks cover too.
        shape: the required `(rows, length)`, if it is known from elsewhere.

    Returns:
        `(rows, length)`, or None if there are neither IDs nor embeddings.
    """
    ids, embeds = given.get(f"{prefix}input_ids"), given.get(f"{prefix}inputs_embeds")
    if ids is not None and embeds is not None:
        refuse(f"{prefix}inputs_embeds", "embeddings together with ids", f"either {prefix}input_ids or {prefix}inputs_embeds")
    name, own = f"{prefix}input_ids", shape
    if ids is not None:
        own = check_ids(model, part, name, ids)
    elif embeds is not None:
        name = f"{prefix}inputs_embeds"
        own = check_hidden(name, embeds, model.spec.stacks[part].width, model.get_submodule(part).embedding)
    if own is None:
        return None
    if shape is not None and own != shape:
        refuse(name, f"rows and tokens {own}", f"{shape}, as in encoder_outputs")
    rows, length = own
    whole = (rows, offset + length)
    mask = check_numbers(f"{prefix}attention_mask", given, (whole,), "[batch, length]: cached and new tokens")
    if mask is not None and mask.dtype is not torch.bool and looks(model, mask):
        low, high = bounds(mask)
        if low < 0 or high > 1:
            refuse(f"{prefix}attention_mask", f"numbers from {low} to {high}", "1 at tokens and 0 at padding")
    check_numbers(f"{prefix}segment_ids", given, (whole,), "[batch, length]: cached and new tokens")
    if not prefix:
        check_types(model, part, given, own)
    places = check_numbers(f"{prefix}position_ids", given, ((rows, length), (1, length)), "[batch, length]")
    if places is not None and looks(model, places):
        masked = mask is not None and looks(model, mask)
        lowest = bounds(places.masked_fill(~mask[:, offset:].bool(), 0) if masked else places)[0]
        if lowest < 0:
            found = f"the position {lowest} at a token"
            refuse(f"{prefix}position_ids", found, "positions from 0 on, except at padding")
    return own


def check_types(model: ModelParts, part: str, given: Given, shape: tuple[int, int]) -> None:
    """Check the token types of the first stack, from 0 to its last one."""
    types, count = check_numbers("token_type_ids", given, (shape,), "[batch, length]"), model.spec.stacks[part].token_types
    if types is None or count is None:
        return
    if types.dtype not in IDS:
        refuse("token_type_ids", kind(types), "token types in int64 or int32")
    if looks(model, types):
        low, high = bounds(types)
        if low < 0 or high >= count:
            refuse("token_type_ids", f"the token type {low if low < 0 else high}", f"types from 0 to {count - 1}")


def check_tensor(name: str, value: Any, expected: str) -> None:
    if not isinstance(value, Tensor):
        remedy = "torch.as_tensor makes one." if isinstance(value, list | tuple) or hasattr(value, "__array__") else ""
        refuse(name, described(value), f"a tensor {expected}", remedy)
    if value.layout is not torch.strided:
        refuse(name, f"a tensor of the layout {value.layout}", f"a dense tensor {expected}", "`.to_dense()` makes one.")


def check_ids(model: ModelParts, part: str, name: str, ids: Any, *, least: int = 0) -> tuple[int, int]:
    """Check token IDs: at least one token, from `least` to the last ID of the stack's vocabulary. Returns `(rows, length)`."""
    check_tensor(name, ids, "of token ids, [batch, length]")
    if ids.dtype not in IDS:
        refuse(name, kind(ids), "token ids in int64 or int32", "`.long()` converts integers." if is_whole(ids) else "")
    if ids.ndim != 2:
        refuse(name, f"the shape {tuple(ids.shape)}", "[batch, length]")
    check_some(name, ids)
    if looks(model, ids):
        low, high = bounds(ids)
        size, vision = model.spec.vocabulary_of(part), model.spec.stacks[part].vision
        if low < least or (high >= size and not (vision is not None and ids[ids >= size].eq(vision.image_token).all())):
            expected = f"ids from {least} to {size - 1}: the {part}'s vocabulary"
            refuse(name, f"the token id {low if low < least else high}", expected)
    return ids.shape[0], ids.shape[1]


def check_hidden(name: str, hidden: Any, width: int, reader: Any) -> tuple[int, int]:
    """Check embeddings or hidden states, in the dtype of `reader`'s weights unless autocast is on. Returns `(rows, length)`."""
    check_tensor(name, hidden, "[batch, length, width]")
    if hidden.ndim != 3 or hidden.shape[2] != width or not hidden.is_floating_point():
        refuse(name, f"{kind(hidden)} of the shape {tuple(hidden.shape)}", f"floats, [batch, length, {width}]")
    check_some(name, hidden)
    weight = next(reader.parameters(), None)
    if type(weight) is nn.Parameter and hidden.dtype != weight.dtype and cast_to(hidden.device.type) is None:
        refuse(name, kind(hidden), f"{kind(weight)}, as the model's weights", "`.to(dtype)` converts them.")
    return hidden.shape[0], hidden.shape[1]


def check_numbers(name: str, given: Given, shapes: tuple[tuple[int, ...], ...], words: str) -> Any:
    """Check that an argument, if given, is a tensor of integers or booleans in one of these shapes; returns it."""
    value = given.get(name)
    if value is None:
        return None
    check_tensor(name, value, f"of integers, {words}")
    if not is_whole(value):
        # a mask of floats is ambiguous
        remedy = "One of 1.0 and 0.0 is `mask.bool()`; an additive one of 0 and -inf is `mask == 0`."
        refuse(name, kind(value), "integers or booleans", remedy if name.endswith("attention_mask") else "")
    if value.shape not in shapes:
        refuse(name, f"the shape {tuple(value.shape)}", f"{shapes[0]}: {words}")
    return value


def check_some(name: str, tensor: Tensor) -> None:
    if not tensor.numel():
        refuse(name, f"the shape {tuple(tensor.shape)}", "at least one row of at least one token")


def looks(model: ModelParts, tensor: Tensor) -> bool:
    """Whether to check values: not if that needs a synchronisation, nor on tensors without values (meta, fake, vmap)."""
    if type(tensor) is not Tensor or tensor.is_meta or not (model.check_inputs or tensor.device.type == "cpu"):
        return False
    wrapped: bool = torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    return not wrapped


def bounds(tensor: Tensor) -> tuple[int, int]:
    low, high = torch.aminmax(tensor if tensor.dtype in IDS else tensor.long())  # not every small dtype has it
    return int(low), int(high)


def is_whole(tensor: Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex())


def kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
