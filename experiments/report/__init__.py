"""The report of a study."""

from pairform.experiments.report.page import report
from pairform.experiments.report.reading import read_report

__all__ = ["read_report", "report"]
