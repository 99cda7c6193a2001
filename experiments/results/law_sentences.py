"""What a ladder shows, in sentences without a subject."""

from pairform.experiments.results.ladder import VariantLaw
from pairform.experiments.statistics.intervals import CONFIDENCE
from pairform.experiments.statistics.scaling import Estimate, Law, LawFit, Multiplier

FORMULAS: dict[Law, str] = {
    "parameters_tokens": "L(N, D) = E + A / N^alpha + B / D^beta",
    "compute": "L(C) = E + K / C^gamma",
}


def sentences(found: VariantLaw) -> list[str]:
    """Of the law, the multiplier and each iso-FLOP curve."""
    said = [of_law(found.law)]
    if found.multiplier is not None:
        said.append(of_multiplier(found.multiplier))
    for curve in found.iso_flops:
        words = interval_of(curve.best)
        said.append(
            f"at {curve.flops:.3g} FLOPs, the parabola over {len(curve.sizes)} sizes "
            + ("has no minimum that these losses identify." if words is None else f"has its minimum at N = {words}.")
        )
    return said


def of_law(law: LawFit | None) -> str:
    """The parameters of a law with their intervals, and those that are not identified."""
    if law is None:
        return "no scaling law: it needs finished trials of at least 3 sizes that differ in compute."
    known = [f"{name} = {words}" for name, each in law.parameters.items() if (words := interval_of(each)) is not None]
    missing = [name for name, each in law.parameters.items() if each.value is None]
    text = f"{FORMULAS[law.law]} over {law.losses} trials"
    text += f": {', '.join(known)}." if known else "."
    if missing:
        text += f" Not identified by these losses: {', '.join(missing)}."
    return text + resampling(law.resampled)


def of_multiplier(found: Multiplier) -> str:
    """What a change is worth in compute."""
    words = interval_of(found.estimate)
    check = "" if found.interpolated is None else f" Interpolation between losses gives {found.interpolated:.3g}."
    if words is None:
        return f"compute multiplier not identified by these losses.{check}"
    low, high = found.estimate.low, found.estimate.high
    assert low is not None
    assert high is not None
    meaning = "less compute than" if low > 1 else "more compute than" if high < 1 else "no established difference from"
    return f"compute multiplier {words}: {meaning} the first variant for the same loss.{check}"


def interval_of(estimate: Estimate) -> str | None:
    """As in `0.34 (95% interval 0.31 to 0.37)`; None if it is not identified."""
    if estimate.value is None:
        return None
    return f"{estimate.value:.3g} ({CONFIDENCE:.0%} interval {estimate.low:.3g} to {estimate.high:.3g})"


def resampling(what: str) -> str:
    return f" Intervals by resampling {what}."
