"""Plots of functions, computed by the blocks."""

from math import cos, sin

import torch

from pairform.blocks.attention.retention import Retention
from pairform.blocks.norms import DynamicTanh
from pairform.blocks.positions.absolute import SinusoidalPosition
from pairform.blocks.positions.rotary_scaling import DefaultScaling
from pairform.blocks.positions.score_biases import T5RelativePosition, slopes
from pairform.registry import Sizes
from tests.golden.figures.flows import recurrence
from tests.golden.figures.sheet import COLOURS, Plot, Sheet

WIDE = (420.0, 200.0)


def rope(sheet: Sheet) -> tuple[float, float]:
    """The product of a rotated query and a rotated key whose channels are all equal, and the rotation of single pairs."""
    plot = Plot(sheet, 64, 48, (0, 256), (-0.25, 1), WIDE)
    plot.axes(
        (0, 64, 128, 192, 256), (0, 0.5, 1), ("distance between query and key", "product of equal vectors, at distance 0: 1")
    )
    for kind, theta, shift in (("one", 10_000.0, 12), ("two", 1_000_000.0, -4)):
        frequencies = DefaultScaling().frequencies(theta, 128, torch.device("cpu")).double()
        distances = range(0, 257, 2)
        points = [(n, (frequencies * n).cos().mean().item()) for n in distances]
        plot.curve(points, kind, f"theta {theta:,.0f}", shift)
    turns(sheet, 64, 336)
    return 620, 500


def turns(sheet: Sheet, left: float, top: float) -> None:
    """Where RoPE rotates a pair of channels at positions 0 to 7, for four pairs."""
    frequencies = DefaultScaling().frequencies(10_000.0, 128, torch.device("cpu")).tolist()
    radius = 44
    for number, pair in enumerate((0, 8, 16, 32)):
        x, y = left + 54 + number * 136, top + 64
        sheet.text(x, top, f"pair {pair} of 64", "title", "middle")
        sheet.path(f"M{x - radius:g} {y:g}a{radius} {radius} 0 1 1 {2 * radius} 0a{radius} {radius} 0 1 1 {-2 * radius} 0")
        for position in range(7, -1, -1):
            angle = position * frequencies[pair]
            sheet.dot(x + radius * cos(angle), y - radius * sin(angle), *((3, "one") if position else (5, "two")))
    sheet.key(left, top + 138, "two", "position 0")
    sheet.key(left + 120, top + 138, "one", "positions 1 to 7, counterclockwise, theta 10,000")


def alibi(sheet: Sheet) -> tuple[float, float]:
    heads = 4
    plot = Plot(sheet, 64, 48, (0, 64), (-16, 0), WIDE)
    plot.axes((0, 16, 32, 48, 64), (-16, -12, -8, -4, 0), ("distance between query and key", "bias on the score, 4 heads"))
    for head, (kind, slope) in enumerate(zip(COLOURS, slopes(heads).tolist(), strict=True)):
        shift = {2: 12, 3: -4}.get(head, 4)  # their lines end close together
        plot.curve([(0, 0), (64, -64 * slope)], kind, f"head {head}: -1/{1 / slope:g} a token", shift)
    return 660, 308


def t5_relative(sheet: Sheet) -> tuple[float, float]:
    plot = Plot(sheet, 64, 48, (-160, 160), (0, 32), WIDE)
    plot.axes((-160, -80, 0, 80, 160), (0, 8, 16, 24, 32), ("position of the key minus that of the query", "bucket of 32"))
    distances = torch.arange(-160, 161)
    for kind, both, words, shift in (("one", True, "bidirectional", 4), ("two", False, "one direction", 4)):
        block = T5RelativePosition(T5RelativePosition.Spec(bidirectional=both), Sizes(64, heads=1))
        buckets = block.buckets(distances).tolist()
        steps = [
            (n, bucket)
            for n, bucket, last in zip(distances.tolist(), buckets, [None, *buckets[:-1]], strict=True)
            if bucket != last
        ]
        points = [
            corner
            for (n, bucket), (_, before) in zip(steps, [steps[0], *steps[:-1]], strict=True)
            for corner in ((n, before), (n, bucket))
        ]
        plot.curve([*points, (160, buckets[-1])], kind, words, shift)
    return 600, 308


def sinusoidal(sheet: Sheet) -> tuple[float, float]:
    plot = Plot(sheet, 64, 48, (0, 64), (-1, 1), WIDE)
    plot.axes((0, 16, 32, 48, 64), (-1, 0, 1), ("position", "added to a channel, width 64"))
    waves = SinusoidalPosition(SinusoidalPosition.Spec(), Sizes(64)).waves(torch.arange(65))
    for kind, channel, shift in zip(COLOURS, (6, 14, 22, 30), (4, 2, 10, 16), strict=True):
        plot.curve(list(enumerate(waves[:, channel].tolist())), kind, f"channel {channel}", shift)
    return 590, 308


def dynamic_tanh(sheet: Sheet) -> tuple[float, float]:
    plot = Plot(sheet, 64, 48, (-8, 8), (-1, 1), WIDE)
    plot.axes((-8, -4, 0, 4, 8), (-1, 0, 1), ("input of a channel", "output before scale and bias"))
    for kind, alpha, shift in (("one", 0.5, -4), ("two", 0.2, 12)):
        norm = DynamicTanh(DynamicTanh.Spec(bias=False), Sizes(1))
        torch.nn.init.constant_(norm.alpha, alpha)
        torch.nn.init.ones_(norm.weight)
        values = torch.linspace(-8, 8, 65)[:, None]
        points = zip(values[:, 0].tolist(), norm(values)[:, 0].tolist(), strict=True)
        plot.curve(list(points), kind, f"alpha {alpha:g}", shift)
    return 580, 308


def retention(sheet: Sheet) -> tuple[float, float]:
    """A step of the recurrence, and how much of a token remains in the state with the fixed decay."""
    recurrence(sheet)
    plot = Plot(sheet, 64, 208, (0, 256), (0, 1), WIDE)
    plot.axes((0, 64, 128, 192, 256), (0, 0.5, 1), ("tokens since", "share of a token that is left in the state, fixed decay"))
    block = Retention(Retention.Spec(heads=4, decay="fixed"), Sizes(16))
    decays = block.decay(torch.zeros(1, 1, 16, dtype=torch.float64))[0, :, 0]
    for head, (kind, decay) in enumerate(zip(COLOURS, decays.tolist(), strict=True)):
        points = [(n, torch.exp(torch.tensor(decay * n)).item()) for n in range(0, 257, 4)]
        plot.curve(points, kind, f"head {head}: 1 - 1/{2 ** (5 + head)}", {0: 4, 1: -8, 2: -2}.get(head, 4))
    return 660, 468


def comparisons(sheet: Sheet) -> tuple[float, float]:
    """The probability of a false finding by the number of comparisons, all of them independent and without a difference."""
    plot = Plot(sheet, 64, 48, (1, 20), (0, 0.7), WIDE)
    plot.axes(
        (1, 5, 10, 15, 20),
        (0, 0.2, 0.4, 0.6),
        ("independent comparisons of equal variants", "probability of a false finding"),
        "{:.0%}".format,
    )
    counts = range(1, 21)
    plot.curve([(n, 1 - 0.95**n) for n in counts], "two", "each at 5 %")
    # Holm's smallest p-value is Bonferroni's: where no difference is true, both find one with the same probability
    plot.curve([(n, 1 - (1 - 0.05 / n) ** n) for n in counts], "one", "after Holm's correction")
    return 660, 308
