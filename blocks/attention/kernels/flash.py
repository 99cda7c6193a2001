"""flash-attn's fused attention over sequences of different lengths (Dao 2023, arXiv 2307.08691), with window and softcap."""

from importlib import import_module
from importlib.util import find_spec
from itertools import accumulate

import torch
from jaxtyping import Float
from torch import Tensor

from pairform.blocks.attention.kernels.arguments import AttentionCall, Output, Parts
from pairform.blocks.attention.kernels.biases import average_fully_masked
from pairform.blocks.attention.kernels.variable_length import Runs, gathered, runs_of, scattered
from pairform.blocks.functional.constants import constant
from pairform.registry import InputError, Problem


def flash(queries: Float[Tensor, "batch heads q head_dim"], keys: Parts, values: Parts, call: AttentionCall) -> Output:
    """Padding is removed first. With a window, the output at padded queries is zero; no other token attends to them."""
    runs = call.mask.once("runs", lambda: runs_of(call.mask, len(queries), queries.device))
    if runs is None:
        raise InputError(Problem("attention_mask", "padding within a sequence, with a window", "padding before or after it"))
    mixed = import_module("flash_attn").flash_attn_varlen_func(
        gathered(queries, runs.queries),
        *(gathered(heads, runs.keys) for (heads,) in (keys, values)),
        **arguments(runs, queries.device),
        softmax_scale=call.scale,
        softcap=call.softcap or 0.0,  # 0 is none
    )
    return average_fully_masked(scattered(mixed, runs.queries, len(queries), queries.shape[2]), values, call.mask), None


def arguments(runs: Runs, device: torch.device) -> dict[str, object]:
    """flash_attn_varlen_func's arguments about the runs: where each begins, the longest, and the window (-1 is all)."""
    starts = [
        # where each run begins, and the end of the last
        torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)
        for lengths in (runs.query_lengths, runs.key_lengths)
    ]
    left, right = runs.window
    return {
        "cu_seqlens_q": starts[0],
        "cu_seqlens_k": starts[1],
        "max_seqlen_q": max(runs.query_lengths, default=0),
        "max_seqlen_k": max(runs.key_lengths, default=0),
        "causal": right == 0,
        "window_size": (-1 if left is None else left, -1 if right is None else right),
    }


@constant
def lacks(device: str) -> str | None:
    """What is missing to run flash-attn: the package, or GPUs that are new enough."""
    if find_spec("flash_attn") is None:
        return "needs the package flash-attn, which is not installed"
    # FlashAttention 2 needs Ampere or later
    if any(torch.cuda.get_device_capability(number) < (8, 0) for number in range(torch.cuda.device_count())):
        return "needs GPUs of compute capability 8.0"
    return None
