"""What tested runs have to say for themselves and against each other: ``python -m dermiq.report compare RUN…``."""

from dermiq.report.compare import Comparison, Difference, Gap, GroupAccuracy, compare
from dermiq.report.runs import TestedRun, read_run

__all__ = ["Comparison", "Difference", "Gap", "GroupAccuracy", "TestedRun", "compare", "read_run"]
