from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from maskrcnn import storage
from maskrcnn.errors import IntegrityError, OutputError
from maskrcnn.labelling import checksums
from maskrcnn.labelling.plan_files import PlanFile, PlanHeader, plan_to_parquet, read_plan

HEADER = PlanHeader("me", {"masks": "full"}, 2, (("2026-11-22", 3), (None, 1)))
PARTS = (0, 1, 2)
ROWS = pa.table(
    {
        "image_uri": [f"s3://b/{place}-ü.jpg" for place in range(4)],
        "etag": ["1", "2", "3", "4"],
        "attempt": pa.array([1, 1, 2, 1], pa.int16()),
        "date": ["2026-11-22"] * 3 + [None],
        "store": ["a", None, "a", "b"],
    }
)


def read_all(plan: PlanFile) -> tuple[PlanHeader, pa.Table]:
    return plan.header, plan.read(PARTS)


def as_an_earlier_version_wrote_it(**changes: object) -> bytes:
    said = {
        "format_version": 1, "token": HEADER.token, "settings": HEADER.settings,
        "rows_per_part": HEADER.rows_per_part, "num_rows_by_date": HEADER.num_rows_by_date, **changes,
    }  # fmt: skip
    rows = ROWS.replace_schema_metadata({"maskrcnn": json.dumps(said)})
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, rows.schema, write_page_checksum=True) as writer:
        for part in HEADER.parts(1):
            writer.write_table(rows.slice(part.id.part * 2 - (part.id.part == 2), part.num_images))
    return sink.getvalue()


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes], str]:
    def write(body: bytes) -> str:
        (tmp_path / "plan").write_bytes(body)
        return str(tmp_path / "plan")

    return write


@pytest.mark.parametrize("block_bytes", [1, 7, 1 << 16])
def test_a_plan_is_read_back_whatever_the_blocks(
    write: Callable[[bytes], str], monkeypatch: pytest.MonkeyPatch, block_bytes: int
) -> None:
    monkeypatch.setattr(checksums, "BLOCK_BYTES", block_bytes)
    header, rows = read_plan(write(plan_to_parquet(ROWS, HEADER)), read_all)
    assert header == HEADER
    assert rows.equals(ROWS)


def test_other_readers_of_parquet_see_nothing_of_the_checksums() -> None:
    assert pq.read_table(io.BytesIO(plan_to_parquet(ROWS, HEADER))).equals(ROWS)


def test_a_plan_of_an_earlier_version_is_read(write: Callable[[bytes], str]) -> None:
    assert read_plan(write(as_an_earlier_version_wrote_it()), read_all) == (HEADER, ROWS)


def test_no_flipped_bit_changes_what_is_read(write: Callable[[bytes], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checksums, "BLOCK_BYTES", 64)
    body = plan_to_parquet(ROWS, HEADER)
    rng = random.Random(1)
    num_refused = 0
    for place in range(len(body)):
        damaged = bytearray(body)
        damaged[place] ^= 1 << rng.randrange(8)
        try:
            assert read_plan(write(bytes(damaged)), read_all) == (HEADER, ROWS), place
        except (IntegrityError, OutputError):
            num_refused += 1
    assert num_refused >= len(body) - len(b"PAR1"), "only Parquet's first magic is not needed"


@pytest.mark.parametrize("num_bytes", [0, 3, 8, 60, -1, -8, -200])
def test_a_plan_that_is_cut_off_is_refused(write: Callable[[bytes], str], num_bytes: int) -> None:
    with pytest.raises(IntegrityError, match="the plan cannot be read"):
        read_plan(write(plan_to_parquet(ROWS, HEADER)[:num_bytes]), read_all)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_rows_by_date": [["2026-11-22", 2], [None, 2]]},
        {"num_rows_by_date": [["2026-11-22", 1 << 60]]},
        {"rows_per_part": 3},
        {"rows_per_part": 0},
        {"has_checksums": True},
    ],
)
def test_a_header_that_disagrees_with_its_file_is_refused(
    write: Callable[[bytes], str], changes: dict[str, object]
) -> None:
    with pytest.raises(IntegrityError):
        read_plan(write(as_an_earlier_version_wrote_it(**changes)), read_all)


def test_a_later_versions_plan_is_refused_with_the_remedy(write: Callable[[bytes], str]) -> None:
    with pytest.raises(OutputError, match=r"has format 2, this version reads up to 1.*upgrade"):
        read_plan(write(as_an_earlier_version_wrote_it(format_version=2)), read_all)


def test_bytes_that_are_wrong_once_are_read_again(
    write: Callable[[bytes], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = write(plan_to_parquet(ROWS, HEADER))
    bodies = [b"\0" * 500, Path(uri).read_bytes()]

    def open_input(_: str) -> BinaryIO:
        return io.BytesIO(bodies.pop(0))

    monkeypatch.setattr(storage, "open_input", open_input)
    assert read_plan(uri, read_all) == (HEADER, ROWS)
    assert bodies == []
