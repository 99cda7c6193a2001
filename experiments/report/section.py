"""The parts of a report: a section has a text, findings, tables and charts. The page renders every section alike."""

from collections.abc import Sequence
from dataclasses import dataclass

from pairform.experiments.report.cells import Table
from pairform.experiments.report.charts import Chart


@dataclass(frozen=True)
class Section:
    """A section of the page.

    key:      its id in the page.
    text:     one paragraph.
    findings: a subject, such as a variant's name, and sentences about it, of which the first is shown.
    charts:   each also has a table of its numbers, which the page adds.
    """

    key: str
    title: str
    text: str
    findings: Sequence[tuple[str, Sequence[str]]] = ()
    tables: Sequence[Table] = ()
    charts: Sequence[Chart] = ()
