"""What a study would take, on the command line."""

import shlex
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pairform.cli.display.printing import Sheet, print_wide
from pairform.cli.display.remarks import matched, print_remarks, print_sentences, resized
from pairform.cli.display.text import duration
from pairform.registry.errors import printable

if TYPE_CHECKING:
    from pairform.experiments.execution.forecast import Forecast


def forecast_rows(found: "Forecast", difference: float | None) -> dict[str, Any]:
    """The forecast as a document."""
    rows: dict[str, Any] = {
        "variants": [
            asdict(replace(variant, match=None))
            | {"match": None if variant.match is None else variant.match.row, "seconds": variant.seconds}
            for variant in found.variants
        ],
        "trials": found.trials,
        "seconds": found.seconds,
        "bytes": found.bytes,
        "comparisons": found.comparisons,
        "sweep_trials": found.swept,
        "aliases": found.aliases,
        "law": found.law,
        "noise": None,
    }
    if found.noise is not None:
        rows["noise"] = asdict(found.noise) | {"interval": found.noise.interval, "detectable": found.detectable}
        rows["noise"]["detectable_effects"] = found.detectable_effects
        if difference:
            rows["noise"]["seeds_needed"] = found.seeds_needed(difference)
    return rows


def print_forecast(found: "Forecast", difference: float | None, file: Path) -> None:
    """Print the forecast of the study in `file`."""
    table, timed = Sheet(), found.seconds is not None
    sizes = ("N", "D", "C") if found.study.ladder else ("parameters", "FLOPs")
    starts = ("carried over",) if any(variant.carried_parameters is not None for variant in found.variants) else ()
    ends = ("size vs first",) if any(variant.match is not None for variant in found.variants) else ()
    for column in ("variant", "trials", *sizes, *starts, *(("ms a step", "time of all") if timed else ()), *ends):
        table.add_column(column, justify="left" if column == "variant" else "right")
    for variant in found.variants:
        times = (f"{1000 * (variant.step_seconds or 0):.1f}", duration(variant.seconds or 0)) if timed else ()
        law = [f"{number:.3g}" for number in variant.law.values()]
        counts = law or (f"{variant.parameters:,}", f"{variant.flops:,}")
        kept = [f"{variant.carried_parameters or 0:,}" for _ in starts]
        match = ["" if variant.match is None else matched(variant.match.row) for _ in ends]
        table.add_row(variant.name, str(variant.trials), *counts, *kept, *times, *match)
    print_wide(table)
    total = "" if found.seconds is None else f"; training one after another takes about {duration(found.seconds)}"
    print(f"{found.trials} trials{total}; at most {found.bytes / 1e6:,.1f} MB of disk.")
    if found.swept:
        rest = found.trials - found.swept
        print(f"{found.swept} of the trials choose the tuned values; at most {rest} retrain the variants on other seeds.")
    if found.study.ladder:
        from pairform.experiments.results.law_sentences import FORMULAS

        said = "no scaling law" if found.law is None else FORMULAS[found.law]
        print(f"The sizes identify {said}.")
    print_sentences((variant.name, resized(variant.match)) for variant in found.variants if variant.match is not None)
    print_remarks((variant.name, variant.also, variant.remarks) for variant in found.variants)
    for group in found.aliases:
        print(printable(f"Aliased: {', '.join(group)}."))
    for line in noise_lines(found, difference, file):
        print(printable(line))


def noise_lines(found: "Forecast", difference: float | None, file: Path) -> list[str]:
    """What the study could find, in sentences."""
    rules, count = found.study.comparison, found.comparisons
    if not count:
        return []
    if found.noise is None:
        command = shlex.join(["pairform", "study", "run", str(file), "--only", found.study.first])
        return ["Noise: not known. Run at least 3 seeds of the first variant, with the same --set and --out:", command]
    low, high = found.noise.interval
    lines = [
        f"Noise: differences in loss vary between seeds by a standard deviation of {found.noise.deviation:.2g} "
        f"(95% interval {low:.2g} to {high:.2g}), estimated from {found.noise.source}."
    ]
    seeds, among = found.seeds, f"among {count} comparison{'s' * (count > 1)}"
    if (seen := found.detectable) is None:
        lines.append(f"{seeds} seed{'s' * (seeds > 1)} cannot be tested; use at least 3.")
    else:
        lines.append(
            f"With {seeds} seeds, a difference of {seen:.2g} is found with a probability of {rules.power:.0%} {among}."
        )
        if effects := found.detectable_effects:
            told = ", ".join(f"{factor} {effect:.2g}" for factor, effect in effects.items())
            lines.append(f"This is between combinations. Between levels of a factor, averaged over combinations: {told}.")
    if difference:
        needed = found.seeds_needed(difference)
        lines.append(f"A difference of {difference:g} needs {'more than 10,000' if needed is None else needed} seeds.")
    return lines
