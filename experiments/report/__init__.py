"""A study's report: one HTML page."""

from pairform.experiments.report.page import report

__all__ = ["report"]
