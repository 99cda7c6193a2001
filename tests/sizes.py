"""Sizes of T5Gemma 2's pieces, as in the published checkpoints."""

TEXT = {"270m": 100_326_016, "1b": 697_896_064, "4b": 3_209_010_688}
"""A Gemma 3 stack without its embedding, as it stands on each side of T5Gemma 2."""
WIDTHS = {"270m": 640, "1b": 1152, "4b": 2560}
TOWER = 416_866_032
PROJECTORS = {"270m": 738_432, "1b": 1_328_256, "4b": 2_950_272}


def pieces(name: str) -> dict[str, int]:
    """What a T5Gemma 2 consists of: tables with a row more for the end of a picture, one of them where widths agree."""
    encoder, decoder = name.split("-")[1:]
    return {
        "embedding": sum(262_145 * WIDTHS[size] for size in {encoder, decoder}),
        "encoder": TEXT[encoder],
        "decoder": TEXT[decoder],
        "vision": TOWER + PROJECTORS[encoder],
        "bridge": 0 if encoder == decoder else WIDTHS[encoder] * WIDTHS[decoder],
    }
