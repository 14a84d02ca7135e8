"""Reports on tested runs: an HTML page, and tables that compare them.

``python -m dermiq.report RUN… --out DIR`` writes a page about them, ``python -m dermiq.report compare RUN…`` tables.
"""

from dermiq.report.compare import Comparison, Difference, Gap, GroupAccuracy, compare
from dermiq.report.runs import TestedRun, read_run
from dermiq.report.writing import write_report

__all__ = ["Comparison", "Difference", "Gap", "GroupAccuracy", "TestedRun", "compare", "read_run", "write_report"]
