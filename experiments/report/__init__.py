"""The report of a study."""

from pairform.experiments.report.page import report

__all__ = ["report"]
