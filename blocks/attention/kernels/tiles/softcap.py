"""The softcap `cap * tanh(x / cap)` of a tile of scores, in place.

In half precision as `cap * (2 sigmoid(2 x / cap) - 1)`, which loses the digits of small scores to cancellation, but is faster
than `torch.tanh` on CPUs. In float32 as the continued fraction, accurate as `torch.tanh` and on some CPUs three times as fast:
`tanh(x) = x / (1 + x^2 / (3 + x^2 / (5 + ...)))` (Lambert) only adds positive numbers. Its depth
depends on the largest score of the tile.
"""

import torch
from torch import Tensor

from pairform.blocks.attention.kernels.tiles.buffers import Buffers

REACHES = {
    0.2: (5.004284,),
    0.62: (5.000103, 7.053264),
    1.33: (5.000013, 7.002948, 9.279581),
    2.42: (5.000006, 7.000649, 9.033178, 11.99867),
    3.88: (5.000005, 7.000325, 9.01036, 11.19956, 15.67944),
    5.52: (5.000004, 7.000205, 9.004791, 11.07019, 13.70042, 20.53413),
    7.27: (5.000004, 7.000142, 9.002685, 11.03271, 13.27878, 16.74802, 26.62603),
    9.16: (5.000003, 7.000112, 9.001793, 11.01893, 13.1433, 15.80572, 20.56333, 34.09083),
}
"""The largest |x| for which the fraction of 1, 3 and these numbers is exact in float32. They differ from Lambert's odd numbers
so that the fraction equals tanh at the Chebyshev nodes of the range; between them its relative error is below 5e-8. Beyond 9.1
tanh is 1 in float32."""
FRACTIONS = [
    (reach, torch.tensor((1.0, 3.0, *numbers), dtype=torch.float32, device="cpu").unbind())
    for reach, numbers in REACHES.items()
]
"""The same, as scalars that torch's fused operations accept."""
STEEP = 1.33
"""The largest |x| for which the slope `1 - tanh^2` may use the fraction: near 1 cancellation would amplify its rounding."""
ZERO = torch.zeros((), dtype=torch.float32, device="cpu")


def cap_scores(scores: Tensor, inner: float, cap: float, buffer: Buffers, *, half: bool = False, sloped: bool = False) -> None:
    """Replace products of queries and keys by `cap * tanh(inner * product)`.

    half: queries and keys are in half precision, so that an error of two roundings of `cap` to float32 is negligible.
    sloped: the slope is computed from the result.
    """
    if half:  # twice as fast
        twice = scores if inner == 0.5 else scores.mul_(2 * inner)
        torch.add(scores.new_full((), -cap), twice.sigmoid_(), alpha=2 * cap, out=scores)
    elif numbers := fraction_for(scores, abs(inner), STEEP if sloped else max(REACHES)):
        squares, fraction = (buffer(name, tuple(scores.shape), scores.dtype) for name in ("squares", "fraction"))
        # from the innermost term outwards, with x = inner * score: number + x^2 / fraction; at the end cap * x / fraction
        torch.mul(scores, scores, out=squares)
        *others, before, last = numbers
        torch.add(before, squares, alpha=inner**2 / float(last), out=fraction)
        for number in reversed(others):
            torch.addcdiv(number, squares, fraction, value=inner**2, out=fraction)
        torch.addcdiv(ZERO, scores, fraction, value=cap * inner, out=scores)
    else:
        scores.mul_(inner).tanh_().mul_(cap)


def slope(scores: Tensor, scale: float, cap: float, buffer: Buffers) -> Tensor:
    """`scale * (1 - tanh^2)` for scores `cap * tanh`."""
    bent = buffer("bent", tuple(scores.shape), scores.dtype)
    return torch.addcmul(scores.new_full((), scale), scores, scores, value=-scale / cap**2, out=bent)


def fraction_for(scores: Tensor, inner: float, reach: float) -> tuple[Tensor, ...] | None:
    """The numbers of the shortest continued fraction that is accurate enough; None to use `torch.tanh`."""
    if scores.device.type != "cpu" or scores.dtype != torch.float32 or not scores.numel():
        return None
    low, high = torch.aminmax(scores)
    largest = inner * max(-float(low), float(high))
    if not largest <= reach:  # also where it is NaN
        return None
    return next(numbers for most, numbers in FRACTIONS if largest <= most)
