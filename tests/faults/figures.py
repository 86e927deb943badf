"""What the promises' tests have seen, as JSON, and the table of it in docs/RELIABILITY.md.

One file a promise, of the last small and of the last soak run. ``python -m tests.faults.figures`` writes the table.
"""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.faults.scale import scale

RESULTS = Path(__file__).with_name("results")
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "RELIABILITY.md"
FORMS = ("small", "soak")
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def record(promise: str, **figures: Any) -> None:
    """Keep the figures of a promise that was just seen kept.

    Args:
        promise: its name, as in docs/RELIABILITY.md; the name of the file as well.
        figures: numbers, short words, or numbers by name.
    """
    folder = RESULTS / scale(*FORMS)
    folder.mkdir(parents=True, exist_ok=True)
    seen = {"promise": promise, "date": f"{datetime.now(UTC):%Y-%m-%d}", "machine": _machine(), "figures": figures}
    (folder / f"{promise}.json").write_text(json.dumps(seen, indent=2) + "\n")


def build_table(results: Path = RESULTS) -> str:
    """Give the recorded figures as a Markdown table, one row a promise."""
    seen = {
        form: {path.stem: json.loads(path.read_text()) for path in (results / form).glob("*.json")} for form in FORMS
    }
    lines = ["| promise | small form | long form |", "| --- | --- | --- |"]
    for promise in sorted(set().union(*seen.values())):
        cells = [_describe(seen[form].get(promise)) for form in FORMS]
        lines.append(f"| `{promise}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def put_table(document: str, table: str) -> str:
    """Give a document with this table between its two marks."""
    before, rest = document.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def _describe(seen: dict[str, Any] | None) -> str:
    if seen is None:
        return "not run yet"
    figures = "; ".join(f"{name.replace('_', ' ')} {_format(value)}" for name, value in seen["figures"].items())
    return f"{figures} ({seen['date']}, {seen['machine']})"


def _format(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_format(one)}" for name, one in value.items())
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def _machine() -> str:
    return f"{len(os.sched_getaffinity(0))} cores, {platform.system()} {platform.machine()}"


if __name__ == "__main__":
    DOCUMENT.write_text(put_table(DOCUMENT.read_text(), build_table()))
