"""Peak rates of the machine for matrix products and memory reads, measured in the same run as the results compared with them.

python -m benchmarks.rates [--device cpu] [--threads 2]
"""

import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.compare import rounded, synchronise
from benchmarks.measure import save
from benchmarks.options import Options, parse


def fastest(call: Callable[[], torch.Tensor], seconds: float) -> float:
    """The shortest time of several calls that together take about `seconds`."""
    best, spent, turns = float("inf"), 0.0, 0
    while spent < seconds or turns < 3:
        synchronise()
        begin = time.perf_counter()
        call()
        synchronise()
        taken = time.perf_counter() - begin
        best, spent, turns = min(best, taken), spent + taken, turns + 1
    return best


@torch.no_grad()
def matrix_rate(dtype: torch.dtype, options: Options) -> float:
    """Floating-point operations per second of a large square product; a multiply-add counts as two."""
    size = 256 if options.quick else 2048 if options.device == "cpu" else 8192
    left, right = (torch.randn(size, size, dtype=dtype, device=options.device) for _ in range(2))
    return 2 * size**3 / fastest(lambda: left @ right, 0.01 if options.quick else 1.0)


@torch.no_grad()
def bandwidth(options: Options) -> float:
    """Memory read rate in bytes per second, from the sum of a tensor much larger than the caches."""
    size = 1 << (20 if options.quick else 28)
    tensor = torch.ones(size, device=options.device)
    return tensor.nbytes / fastest(tensor.sum, 0.01 if options.quick else 1.0)


def rates(options: Options) -> dict[str, Any]:
    return {
        "float32_flops": rounded(matrix_rate(torch.float32, options)),
        "bfloat16_flops": rounded(matrix_rate(torch.bfloat16, options)),
        "read_bytes": rounded(bandwidth(options)),
    }


def main() -> None:
    options = parse(__doc__)
    found = {"machine": {"threads": options.threads}, "what": "peak rates of the machine, per second", **rates(options)}
    save("rates", found, options.results, options.device)


if __name__ == "__main__":
    main()
