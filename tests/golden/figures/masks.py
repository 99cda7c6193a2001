"""Matrices of masks, computed by the masks that attention kernels read."""

from collections.abc import Sequence
from typing import Any

import torch

from pairform.blocks.attention.mask_spec import MaskSpec
from pairform.blocks.attention.masks import FULL, JoinedMask, Mask, MaskPattern
from pairform.blocks.vision import AveragePoolProjector
from pairform.registry import Sizes
from tests.golden.figures.sheet import COLOURS, Sheet

SIDE = 8
CELL = 16
STEP = SIDE * CELL + 48


def pattern(**fields: object) -> MaskPattern:
    """As an architecture declares it."""
    spec = MaskSpec.read(fields)
    return MaskPattern(spec.causal, spec.window, spec.prefix)


def cells(mask: JoinedMask) -> list[list[str]]:
    """The class of each cell: allowed keys of the own sequence, of the source, or masked."""
    queries, keys = mask.lengths
    allowed = mask.dense(torch.device("cpu"))
    rows = torch.ones(queries, keys, dtype=torch.bool) if allowed is None else allowed.expand(1, 1, queries, keys)[0, 0]
    kinds = [kind for part in mask.parts for kind in ["two" if part.reads == "source" else "one"] * part.key_length]
    return [[kind if cell else "off" for kind, cell in zip(kinds, row, strict=True)] for row in rows.tolist()]


def own(given: MaskPattern, queries: int = SIDE, **tokens: Any) -> JoinedMask:
    """The mask of the last `queries` of eight tokens."""
    return JoinedMask((Mask(given, SIDE - queries, queries, 0, SIDE, **tokens),))


def source(length: int, padding: int = 0, queries: int = SIDE) -> Mask:
    valid = torch.arange(length)[None] < length - padding if padding else None
    return Mask(FULL, 0, queries, 0, length, valid, "source")


def row(sheet: Sheet, top: float, shown: Sequence[tuple[str, JoinedMask]]) -> None:
    for number, (title, mask) in enumerate(shown):
        sheet.matrix(24 + number * STEP, top, cells(mask), title, CELL)


def prefixed(length: int) -> torch.Tensor:
    """The number of the block of each token: 0 in the prefix, and none after it."""
    return torch.where(torch.arange(SIDE) < length, 0, -1)[None]


def masks(sheet: Sheet) -> tuple[float, float]:
    """The kinds of masks of one sequence."""
    documents = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1]])
    causal = pattern(causal=True)
    row(
        sheet,
        48,
        [
            ("both directions", own(FULL)),
            ("causal", own(causal)),
            ("causal, window [2, 0]", own(pattern(causal=True, window=[2, 0]))),
            ("window [2, 2]", own(pattern(window=[2, 2]))),
        ],
    )
    padding = torch.arange(SIDE)[None] < SIDE - 2
    row(
        sheet,
        48 + STEP,
        [
            ("prefix of 3", own(pattern(causal=True, prefix=True), blocks=prefixed(3))),
            ("two segments", own(causal, query_segments=documents, key_segments=documents)),
            ("padding at the end", own(FULL, valid=padding)),
            ("2 new tokens, 6 cached", own(causal, queries=2)),
        ],
    )
    legend(sheet, 2 * STEP + 20)
    return 4 * STEP + 24, 2 * STEP + 44


def self_attention(sheet: Sheet) -> tuple[float, float]:
    row(
        sheet,
        48,
        [
            ("both directions", own(FULL)),
            ("causal", own(pattern(causal=True))),
            ("causal, window [2, 0]", own(pattern(causal=True, window=[2, 0]))),
        ],
    )
    legend(sheet, STEP + 20)
    top, x = STEP + 66.0, 24.0
    for title, groups in (("heads 4, kv_heads 4", 4), ("kv_heads 2 (GQA)", 2), ("kv_heads 1 (MQA)", 1)):
        sheet.text(x, top, title, "title")
        for head in range(4):
            key = x + (head * groups // 4 + 0.5) * 128 / groups
            sheet.path(f"M{x + 16 + head * 32:g} {top + 44:g}L{key:g} {top + 80:g}")
            sheet.box(x + head * 32 + 2, top + 28, 28, f"q{head}")
        for group in range(groups):
            sheet.box(x + (group + 0.5) * 128 / groups - 14, top + 96, 28, f"k{group}", "norm")
        x += STEP
    return 3 * STEP + 24, top + 130


def cross_attention(sheet: Sheet) -> tuple[float, float]:
    row(sheet, 48, [("own tokens", own(pattern(causal=True))), ("source, 2 of 8 padded", JoinedMask((source(8, 2),)))])
    sheet.text(24, STEP + 14, "self-attention", "soft")
    sheet.text(24 + STEP, STEP + 14, "cross-attention", "soft")
    legend(sheet, STEP + 44, source=True)
    return 3 * STEP + 96, STEP + 68


def merged_attention(sheet: Sheet) -> tuple[float, float]:
    local = pattern(causal=True, window=[2, 0])
    for number, (title, given) in enumerate({"global layer": pattern(causal=True), "local layer": local}.items()):
        joined = JoinedMask((*own(given).parts, source(6, 1)))
        sheet.matrix(24 + number * (STEP + 6 * CELL), 48, cells(joined), f"one softmax, {title}", CELL)
    legend(sheet, STEP + 20, source=True)
    return 2 * (STEP + 6 * CELL) + 80, STEP + 44


def average_pool(sheet: Sheet) -> tuple[float, float]:
    """Which patches the block averages to which token."""
    spec = AveragePoolProjector.Spec.read({"name": "average_pool", "tokens": 4, "norm": {"name": "none"}})
    projector = AveragePoolProjector(spec, Sizes(1, source_width=1, source_length=SIDE**2))
    torch.nn.init.ones_(projector.weight)
    # a picture for each patch, in which only this one is not zero
    tokens = projector(torch.eye(SIDE**2)[..., None])[..., 0].argmax(-1).view(SIDE, SIDE)
    sheet.matrix(24, 48, [[COLOURS[token] for token in row] for row in tokens.tolist()], "64 patches", CELL)
    middle = 48.0 + SIDE * CELL / 2
    sheet.text(STEP + 22, middle - 10, "mean", anchor="middle")
    sheet.arrow((STEP - 8, middle), (STEP + 52, middle))
    sheet.matrix(STEP + 72, middle - CELL, [list(COLOURS[:2]), list(COLOURS[2:])], "4 tokens", CELL)
    return 2 * STEP, STEP + 24


def legend(sheet: Sheet, y: float, *, source: bool = False) -> None:
    sheet.key(24, y, "one", "own key that is attended to")
    sheet.key(232, y, "off", "masked")
    if source:
        sheet.key(312, y, "two", "source key")
    sheet.text(420 if source else 320, y, "rows: queries, columns: keys", "soft")
