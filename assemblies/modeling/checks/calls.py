"""Validation of the arguments of `forward` and `generate` for each assembly."""

import inspect
import math
import sys
from typing import Any

import torch
from torch import Tensor

from pairform.assemblies.modeling.base import ModelParts
from pairform.assemblies.modeling.checks.arguments import described, number
from pairform.assemblies.modeling.checks.caches import check_same_model
from pairform.assemblies.modeling.checks.tensors import (
    Given,
    bounds,
    check_call,
    check_hidden,
    check_ids,
    check_numbers,
    check_stack,
    check_tensor,
    looks,
    refuse,
)
from pairform.assemblies.modeling.outputs import encoder_hidden
from pairform.blocks.cache import Cache
from pairform.blocks.functional.dtypes import is_sharded
from pairform.blocks.heads.labels import IGNORED, check_values
from pairform.blocks.heads.loss_terms import LossTerms
from pairform.blocks.heads.token_heads import LMHead
from pairform.registry import shorten


def check_forward(model: ModelParts, given: Given) -> None:
    """Raise `InputError` for arguments of `forward` that do not fit the model or each other."""
    cache = check_call(model, given)
    offset = 0 if cache is None else cache.length
    labels, head = given.get("labels"), model.spec.head.name
    if labels is not None:
        check_tensor("labels", labels, "of integers, or of floats for regression and for several labels a row")
    read = check_stack(model, "decoder", given, "", offset) if model.encoder is None else check_source(model, given)
    pair = model.encoder is not None and model.decoder is not None
    if read is None:
        refuse("input_ids", "nothing to read", f"input_ids or inputs_embeds{', or encoder_outputs' if pair else ''}")
    if pair:
        read = check_target(model, given, read, offset)
    check_loss_tokens(model, given)
    check_loss_terms(model, given)
    if labels is not None and head in ("lm", "masked_lm", "token_classification"):
        check_numbers("labels", given, (read,), "[batch, length], one for each token")
        if head == "lm" and model.check_inputs and labels.device.type != "cpu":  # there the loss checks labels itself
            vocabulary = model.spec.vocabulary_of("decoder" if model.decoder else "encoder")
            check_values(labels, vocabulary, f"token ids below {vocabulary}")
    check_rows(model, given, cache, read[0])


def check_loss_tokens(model: ModelParts, given: Given) -> None:
    """Check the number that the summed loss is divided by."""
    count = given.get("loss_tokens")
    if count is None:
        return
    if "labels" not in given:
        refuse("loss_tokens", "a number of labels without labels", "labels beside it")
    if "tokens" not in inspect.signature(model.head.loss).parameters:
        refuse("loss_tokens", f"the head {model.spec.head.name!r}, whose loss has no argument `tokens`", "a head that has it")
    if isinstance(count, Tensor):
        if count.ndim != 0 or count.is_complex() or count.dtype == torch.bool:
            refuse("loss_tokens", f"{str(count.dtype).removeprefix('torch.')} of the shape {list(count.shape)}", "one number")
        if looks(model, count) and not float(count) > 0:
            refuse("loss_tokens", f"{float(count):g}", "a number above 0")
    elif isinstance(count, bool) or not isinstance(count, int) or count < 1:
        refuse("loss_tokens", shorten(count), "a whole number above 0, or one in a tensor")


def check_loss_terms(model: ModelParts, given: Given) -> None:
    """Check the terms of the loss besides the cross-entropy."""
    terms = given.get("loss_terms")
    if terms is None:
        return
    if not isinstance(terms, LossTerms):
        refuse("loss_terms", described(terms), "LossTerms, of pairform.blocks.heads.loss_terms")
    if "labels" not in given:
        refuse("loss_terms", "terms of a loss without labels", "labels beside them")
    if not isinstance(model.head, LMHead):
        refuse("loss_terms", f"the head {model.spec.head.name!r}", "the head of a language model")
    number("loss_terms.z_loss", terms.z_loss, 0, math.inf, "a number of 0 or more")
    teacher, shape = terms.teacher, tuple(given["labels"].shape)
    if teacher is None:
        return
    number("loss_terms.teacher.weight", teacher.weight, 0, 1, "a number from 0 to 1")
    number("loss_terms.teacher.temperature", teacher.temperature, sys.float_info.min, math.inf, "a number above 0")
    for name in ("hidden", "table", *(() if teacher.bias is None else ("bias",))):
        check_tensor(f"loss_terms.teacher.{name}", getattr(teacher, name), "of floats")
    if tuple(teacher.hidden.shape[:-1]) != shape:
        refuse("loss_terms.teacher.hidden", f"the shape {tuple(teacher.hidden.shape)}", f"{shape} and the teacher's width")
    table = (model.spec.head_sizes.vocabulary, teacher.hidden.shape[-1])
    if tuple(teacher.table.shape) != table:
        refuse("loss_terms.teacher.table", f"the shape {tuple(teacher.table.shape)}", f"{table}: vocabulary and width")
    if teacher.bias is not None and tuple(teacher.bias.shape) != table[:1]:
        refuse("loss_terms.teacher.bias", f"the shape {tuple(teacher.bias.shape)}", f"{table[:1]}: the vocabulary")


def check_generate(model: ModelParts, given: Given) -> None:
    """Raise `InputError` for arguments of `generate` that do not fit the model or each other."""
    if model.decoder is None or model.spec.head.name != "lm":
        refuse("model", f"a {model.spec.assembly} model with the head {model.spec.head.name!r}", "a decoder with an LM head")
    cache = check_call(model, given)
    check_gathered(model)
    if model.encoder is None and "token_type_ids" in given:
        refuse("token_type_ids", "types of a prompt", "none: generated tokens have type 0, and so has the prompt")
    prefix = "" if model.encoder is None else "decoder_"
    source = None if model.encoder is None else check_source(model, given)
    if source is None and model.encoder is not None:
        refuse("input_ids", "nothing to read", "input_ids or encoder_outputs")
    # no offset: the prompt and its mask include the tokens that the cache holds
    prompt = check_stack(model, "decoder", given, prefix, 0)
    if prompt is None:
        if f"{prefix}attention_mask" in given:
            refuse(f"{prefix}attention_mask", f"a mask without {prefix}input_ids", "both or neither")
        prompt = (1 if source is None else source[0], 1)
    if source is not None and prompt[0] != source[0]:
        refuse("decoder_input_ids", f"{prompt[0]} rows", f"{source[0]}, as in the source")
    if cache is not None and cache.length >= prompt[1]:
        found = f"{cache.length} cached tokens, with a prompt of {prompt[1]}"
        expected = "a longer prompt, which begins with the tokens that the cache holds"
        refuse("cache", found, expected, "Or start with an empty Cache().")
    check_rows(model, given, cache, prompt[0])


def check_gathered(model: ModelParts) -> None:
    """Raise `InputError` if embeddings are sharded here: fully_shard gathers them in `forward` only."""
    for name, stack in (("encoder", model.encoder), ("decoder", model.decoder)):
        if stack is None or hasattr(stack, "reshard") or hasattr(stack.embedding, "reshard"):
            continue  # wrapped separately, and gathered when it runs
        if any(map(is_sharded, stack.embedding.parameters())):
            expected = "a model sharded by pairform.shard, whose generate gathers them"
            refuse("model", f"sharded embeddings of the {name}, which are gathered in forward only", expected)


def check_source(model: ModelParts, given: Given) -> Any:
    """Check the encoder's input, or its output where that is given; returns `(rows, length)`."""
    outputs = given.get("encoder_outputs")
    if outputs is None:
        return check_stack(model, "encoder", given, "", 0)
    for name in ("inputs_embeds", "position_ids", "token_type_ids", "pixel_values"):
        if name in given:
            refuse(name, "an input of the encoder together with encoder_outputs", "one or the other")
    assert model.encoder is not None
    hidden = encoder_hidden(outputs)
    if hidden is None:
        what = "a value" if isinstance(outputs, str | bytes) else "no hidden states in a value"
        expected = "the output of an earlier call, or the encoder's hidden states"
        refuse("encoder_outputs", f"{what} of type {type(outputs).__name__}", expected)
    shape = check_hidden("encoder_outputs", hidden, model.spec.stacks["encoder"].width, model.encoder.embedding)
    return check_stack(model, "encoder", given, "", 0, shape)


def check_target(model: ModelParts, given: Given, source: tuple[int, int], offset: int) -> tuple[int, int]:
    """Check the input of a decoder that has a source, given or derived from labels or the source; returns `(rows, length)`."""
    name = next((name for name in ("decoder_input_ids", "decoder_inputs_embeds") if name in given), None)
    shape = None
    if name is None:  # then the decoder reads labels or the source, shifted right
        name, least = ("labels", IGNORED) if model.spec.head.name == "lm" else ("input_ids", 0)
        if name not in given:
            expected = f"decoder_input_ids, decoder_inputs_embeds or {name}"
            refuse("decoder_input_ids", "nothing for the decoder to read", expected)
        shape = check_ids(model, "decoder", name, given[name], least=least)
    target = check_stack(model, "decoder", given, "decoder_", offset, shape)
    if target[0] != source[0]:
        refuse(name, f"{target[0]} rows", f"{source[0]}, as in the source")
    return target


def check_rows(model: ModelParts, given: Given, cache: Cache | None, rows: int) -> None:
    """Check `prefix_lengths` and the cache against the number of rows."""
    prefix = check_numbers("prefix_lengths", given, ((rows,),), "[batch]")
    if prefix is not None and looks(model, prefix) and (lowest := bounds(prefix)[0]) < 0:
        refuse("prefix_lengths", f"a length of {lowest}", "0 or more")
    if cache is not None:
        check_same_model(model, cache)
        if cache.batch not in (None, rows):
            remedy = "`cache.rows(index)` gives some of its rows."
            refuse("cache", f"keys and values of {cache.batch} rows", f"{rows}, as in this call", remedy)
