"""A study's results in a notebook: the table and the findings of the report, without its charts."""

from typing import TYPE_CHECKING

from pairform.experiments.report.page import counts
from pairform.registry.html import Cell, Table, fragment

if TYPE_CHECKING:
    from pairform.experiments.report.reading import Measured, Report, Variant

HEAD = ("variant", "trials done", "loss", "difference", "accuracy", "parameters", "FLOPs")


def show(found: "Report") -> str:
    """The HTML of a study's results so far."""
    rows = [row(variant) for variant in found.variants]
    said = [f"{variant.name}: {finding}" for variant in found.variants for finding in variant.findings.values()]
    return fragment(f"{found.study.name}: {counts(found)}", Table(rows, HEAD), notes=said)


def row(variant: "Variant") -> tuple[Cell, ...]:
    measured = variant.measured
    sizes = (round(measured[name].mean) if name in measured else None for name in ("parameters", "flops"))
    losses = (with_interval(each, sign) for each, sign in ((measured.get("loss"), ""), (variant.change, "+")))
    done = f"{len(variant.seeds)} of {len(variant.trials)}"
    return (variant.name, done, *losses, with_interval(measured.get("accuracy"), ""), *sizes)


def with_interval(measured: "Measured | None", sign: str) -> str:
    """A mean, and half the width of its confidence interval if there is one."""
    if measured is None:
        return ""
    half = "" if measured.half_width is None else f" ±{measured.half_width:.4f}"
    return f"{measured.mean:{sign}.4f}{half}"
