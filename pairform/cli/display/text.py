"""Quantities in words."""


def duration(seconds: float) -> str:
    """As in `3 h 20 min`, `4 min` or `12 s`."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
