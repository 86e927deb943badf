"""Groups of images as a user names them: which columns and patterns there are, and what finds nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from maskrcnn.comparison.gate import Gate
from maskrcnn.comparison.job import ComparisonConfig, compare_tables
from maskrcnn.errors import InputError
from maskrcnn.labelling.current import CurrentRows
from maskrcnn.labelling.groups import parse_grouping
from tests.labelled_parts import labelled, write_part

NAMES = ["north/1.jpg", "north-x/2.jpg"]


def table(folder: Path, **columns: Any) -> str:
    return write_part(folder, dict.fromkeys(NAMES, labelled([])), columns=columns)


def labels(uri: str, *words: str) -> dict[str, list[str | None]]:
    rows = CurrentRows(uri)
    grouping = parse_grouping(words, rows)
    found: dict[str, list[str | None]] = grouping.label(rows.read(list(grouping.columns_read))).to_pydict()
    return found


@pytest.mark.parametrize("kind", [pa.binary(), pa.binary(2), pa.large_binary(), pa.dictionary(pa.int8(), pa.binary())])
def test_a_column_of_bytes_is_no_group(tmp_path: Path, kind: pa.DataType) -> None:
    stored = pa.array([b"\xff\xfe", b"ab"], getattr(kind, "value_type", kind)).cast(kind)
    uri = table(tmp_path, raw=stored, shelf=[1, None])
    with pytest.raises(InputError, match=r"--by must be a column \(.*, shelf\) or a regular expression .*, got raw"):
        labels(uri, "raw")
    assert labels(uri, "shelf") == {"shelf": ["1", None]}


def test_an_optional_group_that_took_no_part_is_null_as_one_that_did_not_match(tmp_path: Path) -> None:
    uri = table(tmp_path)
    assert labels(uri, r"/north(?:-(?P<aisle>\w))?/") == {"aisle": [None, "x"]}
    assert labels(uri, r"-(?P<aisle>\w)/") == {"aisle": [None, "x"]}


def test_a_comparison_refuses_a_pattern_that_finds_nothing_whatever_the_gate(tmp_path: Path) -> None:
    uri = table(tmp_path)
    gate = Gate(of_groups={"max_lost_share": 0.3})
    for given in (gate, None):
        with pytest.raises(InputError, match="--by must find store in an image's URI or row, and finds it in none"):
            compare_tables(ComparisonConfig(uri, uri, by=("/(?P<store>nroth)/",), gate=given))
