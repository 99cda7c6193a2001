"""What processor this is and which of its instructions torch and oneDNN use: no figure can be compared without them."""

import os
import platform
from functools import cache

import torch

from pairform.registry.files import read_text

FLAGS = ("avx512_bf16", "avx512_fp16", "avx512_vnni", "avx_vnni", "amx_bf16", "amx_int8", "amx_fp16", "bf16", "i8mm", "sve")
"""Instructions for products in few bits, as Linux names them. torch's level says nothing of these, and oneDNN uses them."""
LIMITS = ("ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")
"""Variables that keep libraries from using all that is there. torch's own, ATEN_CPU_CAPABILITY, shows in the level."""
HALVES = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}


def name() -> str:
    """The processor as Linux calls it, or as Python does."""
    names = described("model name")
    return names[0] if names else platform.processor() or platform.machine()


def instructions() -> str:
    """The level of torch's own code, further instructions for products, and limits that the environment sets, in one line:
    `AVX512, avx512_bf16, amx_bf16, ONEDNN_MAX_CPU_ISA=AVX2`.
    """
    there = {flag for line in (*described("flags")[:1], *described("Features")[:1]) for flag in line.split()}
    flags = [flag for flag in FLAGS if flag in there]
    limits = [f"{limit}={os.environ[limit]}" for limit in LIMITS if os.environ.get(limit)]
    return ", ".join([torch.backends.cpu.get_cpu_capability(), *flags, *limits])


def has_onednn() -> bool:
    """Whether this torch was built with oneDNN."""
    return bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


@cache
def onednn_multiplies(dtype: torch.dtype) -> bool:
    """Whether oneDNN has products of this dtype on this processor: of float32 always, of bfloat16 and float16 on some."""
    if not has_onednn() or dtype not in (torch.float32, *HALVES):
        return False
    if dtype in HALVES and not getattr(torch.ops.mkldnn, HALVES[dtype])():
        return False
    try:  # a limit in the environment does not show in what torch was asked
        weight = torch.ops.mkldnn._reorder_linear_weight(torch.ones(16, 16, dtype=dtype), 1)
        torch.ops.mkldnn._linear_pointwise(torch.ones(1, 16, dtype=dtype), weight, None, "none", [], "")
    except RuntimeError:
        return False
    return True


def described(field: str) -> list[str]:
    """The values of a field of /proc/cpuinfo, one for each core; none where there is no such file."""
    try:
        lines = read_text("/proc/cpuinfo").splitlines()
    except OSError:
        return []
    split = (line.partition(":") for line in lines)
    return [value.strip() for key, _, value in split if key.strip() == field]
