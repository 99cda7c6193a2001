"""Quantities in words."""


def duration(seconds: float) -> str:
    """As in `3 h 20 min`, `4 min` or `12 s`."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def spread(mean: float, half_width: float | None, sign: str = "") -> str:
    """A mean with the half-width of its interval."""
    return f"{mean:{sign}.4f}" + ("" if half_width is None else f" ±{half_width:.4f}")
