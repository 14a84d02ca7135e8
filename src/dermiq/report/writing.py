"""One self-contained HTML page about tested runs: no network, opens from the disk."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dermiq.files import write_atomically
from dermiq.report import charts
from dermiq.report.cases import case_data, verdict_counts
from dermiq.report.figures import Column, Estimate, accuracies, all_metrics, calibration, confusion, headlines
from dermiq.report.stages import Stage, read_stages

PAGE = "index.html"
PARTS = Path(__file__).parent / "page"
SCRIPTS = ("figures.js", "claims.js", "browser.js")
GROUPS: Mapping[Column, str] = {"skin_type": "skin type", "target": "condition"}


def write_report(directories: Sequence[Path], titles: Sequence[str], out: Path) -> Path:
    """Write the report of tested runs, in the order of the stages.

    Args:
        directories: of the runs.
        titles: what to call them.
        out: directory for the page.

    Returns:
        The page.

    Raises:
        DataError: if a run was not tested, a file of it cannot be read, or runs do not fit together.
    """
    write_atomically(out / PAGE, render(read_stages(directories, titles)))
    return out / PAGE


def render(stages: Sequence[Stage]) -> str:
    """The page as HTML."""
    environment = Environment(
        loader=FileSystemLoader(PARTS), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "ensure_ascii": False, "allow_nan": False}
    environment.filters |= {"percent": percent, "number": number, "change": change}
    style = (PARTS / "style.css").read_text(encoding="utf-8")
    script = "\n".join((PARTS / name).read_text(encoding="utf-8") for name in SCRIPTS)
    data = case_data(stages)
    diagnosing = [stage for stage in stages if stage.diagnoses]
    return environment.get_template("index.html.j2").render(
        stages=stages,
        diagnosing=diagnosing,
        judged=(diagnosing or stages)[-1],
        headlines=headlines(stages),
        metrics=all_metrics(stages),
        confusions=[(stage, confusion(stage)) for stage in diagnosing],
        groups=[(words, shares) for column, words in GROUPS.items() if (shares := accuracies(stages, column))],
        calibrations=[(stage, bins) for stage in stages if (bins := calibration(stage))],
        data={name: part for name, part in data.items() if name != "pictures"},
        pictures=data["pictures"],
        verdicts=verdict_counts(data),
        charts=charts,
        today=datetime.now(UTC).date().isoformat(),
        style=Markup(style),
        script=Markup(script),
        policy=f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'",
    )


def percent(value: float) -> str:
    """A share in per cent.

    >>> percent(0.7341)
    '73.4 %'
    """
    return f"{100 * value:.1f} %"


def number(estimate: Estimate | None) -> str:
    """A metric with its interval, as it stands in ``metrics.json``."""
    if estimate is None:
        return ""
    interval = "" if estimate.low is None else f" [{estimate.low:.3f}, {estimate.high:.3f}]"
    return f"{estimate.value:.3f}{interval}"


def change(values: Sequence[Estimate | None], place: int) -> str:
    """How a share differs from the stage before that has one, in points; empty for the first."""
    value, before = values[place], [each for each in values[:place] if each is not None]
    if value is None or not before:
        return ""
    return f"{100 * (value.value - before[-1].value):+.1f}".replace("-", "\N{MINUS SIGN}")


def _hash(text: str) -> str:
    """What a Content-Security-Policy allows this one text by."""
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
