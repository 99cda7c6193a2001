"""The Pareto front: what nothing else betters in both of two numbers."""

from collections.abc import Mapping


def pareto_front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """The names of the points that no other betters, by their first number; of both numbers less is better.

    A point betters another where neither number is greater and one is less, so equal points are on the front together.
    """
    kept = [
        name
        for name, (x, y) in points.items()
        if not any(left <= x and low <= y and (left, low) != (x, y) for left, low in points.values())
    ]
    return sorted(kept, key=lambda name: points[name])
