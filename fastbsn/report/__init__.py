"""One self-contained HTML page about a run: what was found and done, curves, before | after, a table of all images."""

from fastbsn.report.curve import Curve
from fastbsn.report.page import Report

__all__ = ["Curve", "Report"]
