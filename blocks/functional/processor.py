"""The CPU and the instruction sets that torch and oneDNN use on it: measurements are comparable only where these are equal."""

import os
import platform
from collections.abc import Mapping
from functools import cache

import torch

from pairform.blocks.functional.constants import constant
from pairform.registry.files import read_text

FLAGS = ("avx512_bf16", "avx512_fp16", "avx512_vnni", "avx_vnni", "amx_bf16", "amx_int8", "amx_fp16", "bf16", "i8mm", "sve")
"""Instruction sets for low-precision products, as Linux names them. oneDNN uses them; torch's capability level omits them."""
LIMITS = ("ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")
"""Environment variables that restrict libraries to fewer instruction sets. torch's level reflects its ATEN_CPU_CAPABILITY."""
HALVES = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}
BFLOAT16 = {"avx512_bf16", "amx_bf16", "avx_ne_convert"}
"""The instruction sets of x86 with products in bfloat16."""
EMULATED = ("AVX512_CORE", "AVX512_CORE_VNNI")
"""The limits of oneDNN that leave it none of them, but AVX-512, with which it emulates them."""
FEW, MANY = 5, 128
"""Rows from which a product is faster in float32: on CPUs without products in half precision, and on Intel's with avx512_bf16
but without AMX, which multiply bfloat16 at half to two thirds of float32's rate. AMD's multiply it at twice that rate."""


def name() -> str:
    """The name of the CPU according to Linux, else according to Python."""
    names = described("model name")
    return names[0] if names else platform.processor() or platform.machine()


def instructions() -> str:
    """torch's capability level, further instruction sets for products, and limits set in the environment, in one line:
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
    """Whether oneDNN multiplies in this dtype on this CPU: in float32 always, in bfloat16 and float16 on some CPUs."""
    if not has_onednn() or dtype not in (torch.float32, *HALVES):
        return False
    if dtype in HALVES and not getattr(torch.ops.mkldnn, HALVES[dtype])():
        return False
    try:  # torch's answer above ignores limits set in the environment
        weight = torch.ops.mkldnn._reorder_linear_weight(torch.ones(16, 16, dtype=dtype), 1)
        torch.ops.mkldnn._linear_pointwise(torch.ones(1, 16, dtype=dtype), weight, None, "none", [], "")
    except RuntimeError:
        return False
    return True


@constant
def multiplies_int8(device: str) -> bool:
    """Whether oneDNN multiplies int8 matrices on this type of device with exact sums: on CPUs with instructions for it (VNNI).
    On others it adds pairs of products in 16 bits, which overflow."""
    if device != "cpu" or not has_onednn():
        return False
    largest = torch.full((2, 64), 127, dtype=torch.int8)
    try:
        return bool((torch._int_mm(largest, largest.t()) == 64 * 127**2).all())
    except RuntimeError:
        return False


@constant
def widens(device: str) -> bool:
    """Whether some products in half precision take longer than in float32 on a device of this type: on CPUs whose instructions
    for them are slower or missing."""
    return device == "cpu" and bool(least_rows())


def wide_rows(device: str, dtype: torch.dtype) -> int | None:
    """From how many rows products in `dtype` take longer than in float32; None if they do not."""
    return of_cpu(str(dtype)) if device == "cpu" else None


@constant
def of_cpu(dtype: str) -> int | None:
    return least_rows().get(dtype)


@cache
def least_rows() -> Mapping[str, int]:
    """From how many rows products in half precision take longer than in float32 on this CPU, by the names of dtypes."""
    least = {str(dtype): FEW for dtype in HALVES if not onednn_multiplies(dtype)}
    names, flags = described("vendor_id")[:1], {flag for line in described("flags")[:1] for flag in line.split()}
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    if flags and (name := str(torch.bfloat16)) not in least:  # of x86: oneDNN also says that it multiplies where it emulates
        if not flags & BFLOAT16 or limit in EMULATED:
            least[name] = FEW
        elif names == ["GenuineIntel"] and ("amx_bf16" not in flags or (limit and "AMX" not in limit)):
            least[name] = MANY
    return least


def described(field: str) -> list[str]:
    """The values of a field of /proc/cpuinfo, one per core; empty if there is no such file."""
    try:
        lines = read_text("/proc/cpuinfo").splitlines()
    except OSError:
        return []
    split = (line.partition(":") for line in lines)
    return [value.strip() for key, _, value in split if key.strip() == field]
