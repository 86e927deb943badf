"""What the report command makes of counts: an exit code, and no half a site."""

from __future__ import annotations

from pathlib import Path

import pytest

from maskrcnn.commands.command_line import DONE, NOT_AS_IT_SHOULD_BE
from maskrcnn.commands.report import ReportArguments, judge_counts, report
from maskrcnn.counting.page import count_nights
from maskrcnn.errors import InputError
from tests.counted import CAN, NIGHTS, Stock, write_nights


@pytest.mark.parametrize(
    ("nights", "last", "code", "said"),
    [
        (NIGHTS[:4], 5, DONE, ""),
        (NIGHTS[:4], 0, NOT_AS_IT_SHOULD_BE, "DRIFT\n"),
        (NIGHTS[:4], None, NOT_AS_IT_SHOULD_BE, "NOT JUDGED: "),
        (NIGHTS[:3], 5, NOT_AS_IT_SHOULD_BE, "NOT JUDGED: "),
        (NIGHTS[:1], 5, NOT_AS_IT_SHOULD_BE, "NOT JUDGED: "),
    ],
)
def test_a_night_passes_that_was_judged_and_does_not_drift(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], nights: list[str], last: int | None, code: int, said: str
) -> None:
    def stock(night: str, store: str, number: int) -> Stock | None:
        num = last if night == nights[-1] else 5
        return None if num is None else {CAN: num}

    table = write_nights(tmp_path / "out", stock, nights=nights, stores=("north",))
    assert judge_counts(count_nights(table, ())) == code
    assert capsys.readouterr().out.startswith(said)


@pytest.mark.parametrize(("by", "night"), [("no-such-column", None), ("date", "2030-01-01")])
def test_groups_and_nights_that_cannot_be_leave_no_half_a_site(tmp_path: Path, by: str, night: str | None) -> None:
    table = write_nights(tmp_path / "out", lambda *_: {CAN: 1}, nights=NIGHTS[:1], stores=("north",))
    with pytest.raises(InputError, match="--by must be a column|--night must be one of"):
        report(ReportArguments(table, str(tmp_path / "site"), by=(by,), night=night))
    assert not (tmp_path / "site").exists()
