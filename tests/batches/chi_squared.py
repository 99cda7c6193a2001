"""Pearson's chi-squared test, against one chance in a thousand."""

import math
from collections.abc import Iterable, Sequence

import numpy as np


def as_likely(drawn: Iterable[int], shares: Sequence[float]) -> bool:
    """Whether numbers from 0 were drawn with these probabilities. Classes of fewer than 5 expected draws count together."""
    counts = np.bincount([*drawn], minlength=len(shares)).astype(float)
    if len(counts) > len(shares):
        return False
    wanted = counts.sum() * np.array(shares) / math.fsum(shares)
    if (counts[wanted == 0] > 0).any():
        return False
    rare = wanted < 5
    found = np.append(counts[~rare], counts[rare].sum())
    wanted = np.append(wanted[~rare], wanted[rare].sum())
    found, wanted = found[wanted > 0], wanted[wanted > 0]
    return float(((found - wanted) ** 2 / wanted).sum()) < critical(len(wanted) - 1)


def critical(freedom: int) -> float:
    """The value that chi-squared exceeds once in a thousand times (Wilson and Hilferty 1931)."""
    part = 2 / (9 * freedom)
    return freedom * (1 - part + 3.09 * math.sqrt(part)) ** 3
