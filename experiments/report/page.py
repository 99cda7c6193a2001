"""The report of a study: one self-contained HTML page."""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pairform.assemblies.analysis.diagrams import diagram
from pairform.assemblies.analysis.diagrams.canvas import STYLE
from pairform.assemblies.checkpoints.reading.load_spec import load_spec
from pairform.experiments.report import ladder
from pairform.experiments.report.plots import SIGNS, Figure, draw_curves, draw_front, styles
from pairform.experiments.report.reading import CURVES, Report, Variant, read_report
from pairform.experiments.report.table import columns, plain, rows, trial_columns, trial_rows
from pairform.experiments.study.factor_results import FactorResults
from pairform.experiments.study.spec import StudySpec
from pairform.registry import InputError, SpecError, not_installed, replace_text, shown, thaw

PAGE = "report.html"
COSTS = {
    "parameters": ("parameters", ""),
    "flops": ("FLOPs of a forward pass", ""),
    "latency": ("time to generate a target", "s"),
}
"""Label and unit of each cost."""


def report(directory: Path) -> Path:
    """Write a report of the study's results so far.

    The page contains its plots, style and script, so that it can be sent as one file. Equal folders give equal pages.

    Args:
        directory: The study's folder.

    Returns:
        The path of the page, `report.html` in that folder.

    Raises:
        OutputError: there is no study, or the page cannot be written.
        InputError: a package of the extra `study` is not installed.
    """
    found = read_report(directory)
    target = directory / PAGE
    replace_text(target, shown(render(found)))
    return target


def render(found: Report) -> str:
    try:
        import jinja2
        import matplotlib  # noqa: F401  (so that one error names whichever is missing)
    except ModuleNotFoundError as error:
        raise InputError(not_installed("study report", error.name or "jinja2", "study")) from None
    pages = jinja2.Environment(
        loader=jinja2.PackageLoader("pairform.experiments.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters["as_json"] = as_json
    style, script = (Path(__file__).with_name(name).read_text("utf-8") for name in ("report.css", "report.js"))
    looks = styles(found.variants)
    compared = [variant for variant in found.variants if looks[variant.name] is not None]
    shown = columns(found.variants)
    single = trial_columns(shown)
    return pages.get_template("report.html.jinja").render(
        policy=policy(script, (style, STYLE)),
        style=style,
        script=script,
        report=found,
        study=found.study,
        counts=counts(found),
        findings=[] if found.factors else [variant for variant in found.variants if variant.findings],
        factors=[factor_table(each) for each in found.factors],
        ladder=ladder.section(found.ladder),
        rules=found.study.comparison.explanation,
        failed=[trial for trial in found.trials if trial.status == "failed"],
        columns=shown,
        rows=rows(found.variants, shown),
        trial_columns=single,
        trial_rows=trial_rows(found, single),
        looks=looks,
        diagrams={variant.name: compare(found.study, variant) for variant in compared},
        signs=SIGNS,
        curves=present(draw_curves(found.variants, looks, key, title) for key, title in CURVES.items()),
        fronts=present(draw_front(found.variants, looks, cost, *words) for cost, words in COSTS.items()),
        environment={"command": found.environment.get("command"), "facts": facts(found.environment)},
        document=json.dumps(found.study.document(), indent=2, ensure_ascii=False),
    )


def policy(script: str, sheets: Iterable[str]) -> str:
    """A content security policy under which a browser runs only `script`, applies only `sheets`, and loads or sends nothing.

    Style attributes are allowed, since matplotlib writes them.
    """
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {digest(script)}",
            f"style-src-elem {' '.join(map(digest, sheets))}",
            "style-src-attr 'unsafe-inline'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def digest(text: str) -> str:
    """The name of an inline script or style sheet in a policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def compare(study: StudySpec, variant: Variant) -> str | None:
    """A diagram of the variant with its differences from the base marked.

    None if only its training differs, or if it uses a block of a package that is not installed.
    """
    try:
        old, new = load_spec(study.model), load_spec(thaw(variant.trials[0].spec))
    except SpecError:
        return None
    return None if old == new else diagram(new, old=old, title=f"{variant.name} against the base")


def present(figures: Iterable[Figure | None]) -> list[Figure]:
    return [figure for figure in figures if figure is not None]


def counts(found: Report) -> str:
    """As in `3 variants, 2 seeds: 6 of 6 trials done`."""
    done = sum(trial.status == "done" for trial in found.trials)
    variants = number(len(found.variants), "variant")
    seeds = {trial.seed for trial in found.trials}
    return f"{variants}, {number(len(seeds), 'seed')}: {done} of {number(len(found.trials), 'trial')} done"


def number(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def factor_table(found: FactorResults) -> dict[str, Any]:
    """A row for each level of each factor, and what was found of factors and interactions as sentences with their subjects."""
    rows = [
        (each.factor, each.level, plain(each.mean), "" if each.half_width is None else plain(each.half_width))
        for each in found.effects
    ]
    findings = [
        (f"{each.factor}: {each.level}", each.comparison.sentence(found.rules) + found.aliased([each.factor]))
        for each in found.effects
        if each.comparison is not None
    ]
    findings += [
        (
            " by ".join(f"{factor}: {level}" for factor, level in each.levels.items()),
            each.comparison.sentence(found.rules) + found.aliased(list(each.levels)),
        )
        for each in found.interactions
    ]
    return {"measure": found.measure.replace("_", " "), "seeds": len(found.seeds), "rows": rows, "findings": findings}


def facts(environment: Mapping[str, Any], path: str = "") -> list[tuple[str, Any]]:
    """Each value with its path, such as `machine: cores`, except the command, which the page shows by itself."""
    found: list[tuple[str, Any]] = []
    for name, value in environment.items():
        if isinstance(value, Mapping):
            found += facts(value, f"{path}{name}: ")
        elif value is not None and name != "command":
            found.append((path + name, value))
    return found


def as_json(value: Any) -> str:
    """A value of a spec as JSON; empty if absent."""
    return "" if value is None else json.dumps(value, ensure_ascii=False)
