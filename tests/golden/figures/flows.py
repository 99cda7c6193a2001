"""Boxes and arrows: what a block computes, from its input to its output."""

from tests.golden.figures.sheet import Sheet

PLACEMENTS = {
    "pre": ("norm", "f"),
    "post": ("f",),
    "inner_post": ("f", "norm"),
    "sandwich": ("norm", "f", "norm"),
}
"""The boxes of a branch under each placement; with post, a norm follows the sum."""


def placements(sheet: Sheet) -> tuple[float, float]:
    for number, (placement, boxes) in enumerate(PLACEMENTS.items()):
        x = 48.0 + number * 160
        middle = x + 72
        sheet.text(x - 24, 26, placement, "title")
        sheet.text(x - 4, 58, "x", anchor="end")
        sheet.arrow((x, 46), (x, 288))
        sheet.path(f"M{x:g} 66H{middle:g}V208H{x:g}")
        for place, words in enumerate(boxes):
            y = 137 + 42 * (place - (len(boxes) - 1) / 2)
            sheet.box(middle - 32, y, 64, words, "norm" if words == "norm" else "card", 30)
        sheet.sum(x, 208)
        if placement == "post":
            sheet.box(x - 32, 246, 64, "norm", "norm", 30)
    return 48 + 4 * 160, 304


def gated(sheet: Sheet) -> tuple[float, float]:
    sheet.text(24, 85, "x")
    sheet.path("M38 81H60")
    sheet.path("M60 44V118")
    sheet.arrow((60, 44), (84, 44))
    sheet.box(84, 44, 90, "gate")
    sheet.arrow((174, 44), (204, 44))
    sheet.box(204, 44, 100, "activation", "norm")
    sheet.arrow((60, 118), (84, 118))
    sheet.box(84, 118, 90, "up")
    sheet.path("M304 44H340V65")
    sheet.path("M174 118H340V97")
    sheet.box(324, 81, 32, "\N{MULTIPLICATION SIGN}", "sum")
    sheet.arrow((356, 81), (386, 81))
    sheet.box(386, 81, 90, "down")
    sheet.arrow((476, 81), (506, 81))
    sheet.text(514, 85, "y")
    return 540, 154


def mixture(sheet: Sheet) -> tuple[float, float]:
    sheet.text(20, 125, "x")
    sheet.path("M34 121H52")
    sheet.path("M52 46V206")
    sheet.arrow((52, 46), (76, 46))
    sheet.box(76, 46, 92, "router", "norm")
    sheet.text(180, 42, "softmax, top_k = 2", "soft")
    chosen = {1: "0.7", 3: "0.3"}
    for number in range(4):
        x = 96.0 + number * 104
        sheet.box(x, 121, 84, f"expert {number}", "card" if number in chosen else "card outline")
        if number in chosen:
            sheet.arrow((x + 42, 62), (x + 42, 105), kind="source")
            sheet.path(f"M{x + 42:g} 137V166", "source")
            sheet.text(x + 50, 92, f"x, weight {chosen[number]}", "source-words")
    sheet.path("M122 62H450", "source")
    sheet.path("M242 166H450", "source")
    sheet.path("M450 166H540V186", "source")
    sheet.arrow((52, 206), (96, 206))
    sheet.box(96, 206, 110, "shared block")
    sheet.arrow((206, 206), (532, 206))
    sheet.sum(540, 206)
    sheet.path("M540 186V198", "source")
    sheet.arrow((548, 206), (578, 206))
    sheet.text(586, 210, "y")
    return 612, 240


def latent(sheet: Sheet) -> tuple[float, float]:
    sheet.text(20, 105, "x")
    sheet.path("M34 101H52")
    sheet.path("M52 56V182")
    sheet.arrow((52, 56), (76, 56))
    sheet.box(76, 56, 120, "down-projection")
    sheet.arrow((196, 56), (224, 56))
    sheet.box(224, 56, 118, "latent vector", "norm")
    sheet.arrow((52, 182), (76, 182))
    sheet.box(76, 182, 120, "projection, RoPE")
    sheet.arrow((196, 182), (224, 182))
    sheet.box(224, 182, 118, "shared key", "norm")
    sheet.text(283, 122, "in the cache", "soft", anchor="middle")
    sheet.path("M210 26H356V212H210z", "frame")
    sheet.path("M342 56H380")
    sheet.path("M380 56V112")
    for y, words in ((56.0, "values of all heads"), (112.0, "keys of all heads")):
        sheet.arrow((380, y), (404, y))
        sheet.box(404, y, 136, words)
    sheet.arrow((540, 56), (640, 56))
    sheet.box(640, 56, 90, "v")
    sheet.path("M342 182H580")
    sheet.path("M540 112H580V182")
    sheet.arrow((580, 147), (640, 147))
    sheet.box(640, 147, 90, "k, two parts")
    return 754, 228


def differential(sheet: Sheet) -> tuple[float, float]:
    for y, number in ((46.0, 1), (130.0, 2)):
        sheet.text(20, y + 4, f"q{number}, k{number}")
        sheet.arrow((64, y), (88, y))
        sheet.box(88, y, 92, "softmax", "norm")
        sheet.arrow((180, y), (206, y))
        sheet.box(206, y, 84, f"A{number} V")
    sheet.text(248, 92, "V: common to the pair", "soft", anchor="middle")
    sheet.box(318, 130, 60, "λ \N{MULTIPLICATION SIGN}")
    sheet.arrow((290, 130), (318, 130))
    sheet.path("M290 46H404V72")
    sheet.path("M378 130H404V104")
    sheet.box(388, 88, 32, "\N{MINUS SIGN}", "sum")
    sheet.arrow((420, 88), (448, 88))
    sheet.box(448, 88, 84, "RMS norm", "norm")
    sheet.arrow((532, 88), (560, 88))
    sheet.box(560, 88, 76, "1 \N{MINUS SIGN} λ₀")
    sheet.arrow((636, 88), (664, 88))
    sheet.text(672, 92, "output")
    return 736, 166


def recurrence(sheet: Sheet) -> None:
    """One step of retention, in the uppermost 150 pixels."""
    sheet.box(24, 46, 90, "state before", "norm")
    sheet.arrow((114, 46), (150, 46))
    sheet.box(150, 46, 84, "\N{MULTIPLICATION SIGN} decay")
    sheet.arrow((234, 46), (272, 46))
    sheet.sum(280, 46)
    sheet.arrow((288, 46), (326, 46))
    sheet.box(326, 46, 90, "state", "norm")
    sheet.arrow((416, 46), (560, 46))
    sheet.text(568, 50, "next token")
    sheet.text(150, 122, "key, value", anchor="end")
    sheet.arrow((158, 118), (180, 118))
    sheet.box(180, 118, 72, "product")
    sheet.arrow((252, 118), (280, 118), (280, 54))
    sheet.text(352, 122, "query", anchor="end")
    sheet.arrow((358, 118), (386, 118))
    sheet.arrow((402, 62), (402, 102))
    sheet.box(386, 118, 72, "product")
    sheet.arrow((458, 118), (486, 118))
    sheet.box(486, 118, 134, "norm, gate, output")


ROWS = {
    "embedding": 76.0,
    "self-attention": 128.0,
    "cross-attention": 180.0,
    "feed-forward": 232.0,
    "norms": 284.0,
    "head": 336.0,
}


def initialisation(sheet: Sheet) -> tuple[float, float]:
    """Where the parts of a pair come from."""
    columns = {"encoder's source": 16.0, "encoder": 236.0, "decoder": 456.0, "decoder's source": 676.0}
    lacks = {
        ("encoder's source", "cross-attention"),
        ("encoder", "cross-attention"),
        ("encoder", "head"),
        ("decoder's source", "cross-attention"),
    }
    for column, x in columns.items():
        sheet.text(x + 70, 36, column, "title", anchor="middle")
        sheet.frame(x - 8, 48, 156, 316, "layer")
        for part, y in ROWS.items():
            if (column, part) not in lacks:
                sheet.box(x, y, 140, part, "card outline" if (column, part) == ("encoder's source", "head") else "card")
    for part, y in ROWS.items():
        if part not in ("cross-attention", "head"):
            sheet.arrow((156, y), (236, y))
        if part != "cross-attention":
            sheet.arrow((676, y), (596, y))
    sheet.text(196, 122, "copy,", "soft", anchor="middle")
    sheet.text(196, 144, "not causal", "soft", anchor="middle")
    sheet.text(636, 122, "copy", "soft", anchor="middle")
    sheet.path("M636 128V180H604", "tied")
    sheet.head(596, 180, 180)
    sheet.text(746, 176, "copy of self-attention,", "soft", anchor="middle")
    sheet.text(746, 192, "or new weights", "soft", anchor="middle")
    sheet.text(188, 340, "not used", "soft", anchor="middle")
    sheet.arrow((384, 206), (416, 206), (416, 180), (456, 180), kind="source")
    return 840, 380
