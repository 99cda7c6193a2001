"""The report of a study: one self-contained HTML page."""

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pairform.assemblies.analysis.diagrams import diagram
from pairform.assemblies.analysis.diagrams.canvas import STYLE
from pairform.assemblies.checkpoints.reading.load_spec import load_spec
from pairform.experiments.report.charts import embedded
from pairform.experiments.report.curves import curves
from pairform.experiments.report.findings import factors, findings
from pairform.experiments.report.fronts import fronts
from pairform.experiments.report.ladder import sizes
from pairform.experiments.report.looks import looks
from pairform.experiments.report.reading import LONGEST_NAME, Report, Variant, read_report
from pairform.experiments.report.section import Section
from pairform.experiments.report.static import svg
from pairform.experiments.report.sweep import tuning
from pairform.experiments.report.table import results, trials
from pairform.experiments.study.spec import StudySpec
from pairform.registry import InputError, SpecError, not_installed, replace_text, shown, thaw
from pairform.registry.errors import cut_middle

PAGE = "report.html"
SECTIONS: tuple[Callable[[Report], Section | None], ...] = (findings, factors, tuning, sizes, results, fronts, curves)
"""The sections of the page in their order; one without results is None and left out."""
LIBRARY = "vendored/echarts.common.min.js"
"""Draws charts; see the notes beside it."""
LONGEST = 2000
"""Characters of a value of a spec, or of a path to one."""


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
    pages.filters |= {"as_json": as_json, "cut": lambda text: cut_middle(text, LONGEST)}
    style, table_script, *chart_scripts = map(asset, ("report.css", "report.js", LIBRARY, "charts.js", "controls.js"))
    sections = [section for make in SECTIONS if (section := make(found)) is not None]
    charts = {chart.key: chart.thinned() for section in sections for chart in section.charts}
    marks, meaning = looks(found, (series.name for chart in charts.values() for series in chart.series))
    scripts = [table_script, *(chart_scripts if charts else ())]
    return pages.get_template("report.html.jinja").render(
        policy=policy(scripts, (style, STYLE)),
        style=style,
        scripts=scripts,
        report=found,
        study=found.study,
        title=cut_middle(found.study.name, LONGEST_NAME),
        counts=counts(found),
        sections=sections,
        charts=charts,
        stills={key: svg(chart, marks) for key, chart in charts.items()},
        chart_data=json.dumps(embedded(charts.values(), marks)).replace("<", "\\u003c"),
        looks=marks,
        meaning=meaning,
        anchors={variant.name: f"variant-{place}" for place, variant in enumerate(found.variants, 1)},
        failed=[trial for trial in (found.tuning or found).trials if trial.status == "failed"],
        trials=trials(found),
        diagrams={variant.name: compare(found.study, variant) for variant in found.variants},
        environment={"command": found.environment.get("command"), "facts": facts(found.environment)},
        document=json.dumps(found.study.document(), indent=2, ensure_ascii=False),
    )


def asset(name: str) -> str:
    """A file of this package."""
    return (Path(__file__).parent / name).read_text("utf-8")


def policy(scripts: Iterable[str], sheets: Iterable[str]) -> str:
    """A content security policy under which a browser runs only `scripts`, applies only `sheets`, and loads or sends nothing.

    Style attributes are allowed, since matplotlib and ECharts write them.
    """
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {' '.join(map(digest, scripts))}",
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


def counts(found: Report) -> str:
    """As in `3 variants, 2 seeds: 6 of 6 trials done`. The trials of a sweep are counted too."""
    trials = (found.tuning or found).trials
    done = sum(trial.status == "done" for trial in trials)
    variants = number(len(found.tuning.sweeps if found.tuning else found.variants), "variant")
    seeds = {trial.seed for trial in found.trials}
    return f"{variants}, {number(len(seeds), 'seed')}: {done} of {number(len(trials), 'trial')} done"


def number(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def facts(environment: Mapping[str, Any], path: str = "") -> list[tuple[str, str]]:
    """Each value with its path, such as `machine: cores`, except the command, which the page shows by itself."""
    found: list[tuple[str, str]] = []
    for name, value in environment.items():
        if isinstance(value, Mapping):
            found += facts(value, f"{path}{name}: ")
        elif value is not None and name != "command":
            found.append((cut_middle(path + name, LONGEST), cut_middle(str(value), LONGEST)))
    return found


def as_json(value: Any) -> str:
    """A value of a spec as JSON; empty if absent."""
    return "" if value is None else cut_middle(json.dumps(value, ensure_ascii=False), LONGEST)
