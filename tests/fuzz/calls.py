"""Arguments of forward and generate, good ones and ones to exchange them for."""

import functools
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor

import pairform
from tests.small_pairs import small_pair, tokens

MODELS = ("pair", "merged", "decoder", "encoder")
BRANCHES = {"self_attention": {"heads": 4, "kv_heads": 2, "head_dim": 8}, "feed_forward": {"hidden": 48}}


@functools.cache
def model_of(kind: str) -> pairform.Model:
    """A small encoder-decoder with separate or merged attention, a decoder alone, an encoder alone."""
    if kind == "decoder":
        stack = {"width": 32, "depth": 2, "cycle": [{}], "layer": {"branches": BRANCHES}}
        document = {"extends": "gemma-2-2b", "vocabulary": 97, "initializer_range": 0.3, "decoder": stack}
        return pairform.build(pairform.load_spec(document), seed=0).eval()
    spec = small_pair("t5gemma2-270m-270m" if kind == "merged" else "t5gemma-b-b")
    if kind == "encoder":
        head = {"name": "sequence_classification", "labels": 3}
        encoder = spec.document()["encoder"]
        spec = pairform.load_spec({"assembly": "encoder_only", "vocabulary": 97, "encoder": encoder, "head": head})
    return pairform.build(spec, seed=0).eval()


def any_model(random: Random) -> tuple[str, pairform.Model]:
    kind = random.choice(MODELS)
    return kind, model_of(kind)


def ids(rows: int = 2, length: int = 11) -> Tensor:
    return tokens(rows=rows, length=length)


def good(kind: str) -> dict[str, Any]:
    """A call that works."""
    if kind == "encoder":
        return {"input_ids": ids(), "labels": torch.tensor([0, 2])}
    if kind == "decoder":
        return {"input_ids": ids(), "labels": ids()}
    return {"input_ids": ids(), "decoder_input_ids": ids(length=7), "labels": ids(length=7)}


def prompt(kind: str) -> dict[str, Any]:
    return {"input_ids": ids(), "max_new_tokens": 5}


def tensors() -> Sequence[Any]:
    """What somebody may hand over in place of any tensor."""
    values: list[Any] = [None, 5, "x", [1, 2, 3], [[3, 4], [5, 6]], np.array([[3, 4, 5]]), object(), (), {}, True]
    values += [ids(), ids(3), ids(1), ids(length=7), ids(length=0), ids(0), ids()[0], ids()[None], ids().T, ids() + 97, -ids()]
    values += [ids().to(dtype) for dtype in (torch.int32, torch.int8, torch.float32, torch.bool, torch.complex64)]
    values += [ids().float() / 7, torch.full((2, 11), 2**40), torch.full((2, 11), -100), torch.zeros(2, 11).long()]
    values += [torch.ones(2, 11), torch.ones(2, 12), torch.full((2, 11), 0.5), torch.zeros(2, 11), torch.full((2, 11), 7)]
    values += [torch.zeros(2, 11).masked_fill(torch.ones(2, 11).tril().bool(), -torch.inf), torch.ones(2, 1, 11, 11)]
    values += [torch.randn(2, 11, 32), torch.randn(2, 11, 31), torch.randn(3, 11, 32), torch.randn(2, 0, 32)]
    values += [torch.randn(2, 11, 32).to(dtype) for dtype in (torch.float64, torch.bfloat16, torch.float16)]
    values += [torch.full((2, 11, 32), torch.nan), torch.ones(2, 11, device="meta").long(), ids().to_sparse()]
    return values


def outputs() -> Sequence[Any]:
    with torch.no_grad():
        made = model_of("pair")(ids(), decoder_input_ids=ids(length=7))
    return [made, (made.encoder_last_hidden_state,), made.encoder_last_hidden_state[:1], pairform.ModelOutput()]


def caches() -> Sequence[Any]:
    """Caches of another model, of another batch, of another prompt."""
    filled = []
    for kind, rows in (("pair", 2), ("pair", 3), ("decoder", 2)):
        cache = pairform.Cache()
        with torch.no_grad():
            call = {"input_ids": ids(rows)} | ({} if kind == "decoder" else {"decoder_input_ids": ids(rows, 4)})
            model_of(kind)(**call, cache=cache)
        filled.append(cache)
    return [pairform.Cache(), *filled, {}, (), "cache"]


TENSORS = (
    *("input_ids", "attention_mask", "decoder_input_ids", "decoder_attention_mask", "labels", "inputs_embeds"),
    *("decoder_inputs_embeds", "position_ids", "decoder_position_ids", "segment_ids", "decoder_segment_ids"),
    *("prefix_lengths", "pixel_values"),
)
FORWARD: tuple[str, ...] = (*TENSORS, *TENSORS, "encoder_outputs", "cache", "output_attentions", "use_cache", "lables")
NUMBERS = ("max_new_tokens", "temperature", "top_k", "top_p", "seed", "eos_token_id", "num_beams", "length_penalty")
GENERATE: tuple[str, ...] = (
    *(*NUMBERS, *NUMBERS, "num_return_sequences", "early_stopping", "do_sample", "use_cache", "streamer"),
    *("input_ids", "attention_mask", "decoder_input_ids", "decoder_attention_mask", "encoder_outputs", "cache"),
    *("pixel_values", "max_tokens", "generation_config", "logits_processor", "stopping_criteria", "prefix_allowed_tokens_fn"),
    *(name for name in pairform.GenerationSpec.model_fields if name != "return_dict_in_generate"),
)
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, 2, -1, 5, 96, 97, 1e-40, 0.5, 1.0, 1.5, 1e12, float("nan"), float("inf"), -0.0, 10**12, 2**70),
    *("1", "", b"1", [], [1, 2], [1, 200], [None], (1,), {1}, {}, object(), print),
)


def exchanged(given: dict[str, Any], names: Sequence[str], random: Random) -> dict[str, Any]:
    """Some arguments replaced, added or left out."""
    for _ in range(random.choice((1, 1, 1, 2))):
        name = random.choice(names)
        if random.random() < 0.1:
            given.pop(name, None)
        elif name == "encoder_outputs":
            given[name] = random.choice((*outputs(), *tensors()))
        elif name == "cache":
            given[name] = random.choice(caches())
        elif name in TENSORS:
            given[name] = random.choice(tensors())
        else:
            given[name] = random.choice(ODD)
            if name in ("temperature", "top_k", "top_p", "seed") and random.random() < 0.7:
                given["do_sample"] = True
    return given


def shown(given: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={brief(value)}" for name, value in given.items())


def brief(value: Any) -> str:
    if not isinstance(value, Tensor):
        return repr(value)[:60]
    readable = value.numel() and not (value.is_meta or value.is_sparse or value.is_complex())
    first = f" from {value.flatten()[0].item():g}" if readable else ""
    return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}{first}"
