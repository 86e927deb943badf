from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from maskrcnn import storage
from maskrcnn.config import LabelConfig
from maskrcnn.errors import OutputError
from maskrcnn.labelling.digests import RECORD, Records, digest_attempts
from maskrcnn.labelling.job import LabellingJob
from maskrcnn.labelling.output import Output
from maskrcnn.labelling.plan import PartId, PlannedPart
from maskrcnn.labelling.plan_files import PlanHeader, num_rows_by_date
from maskrcnn.storage import PutAnswer
from tests.planning import plan_rows
from tests.unit.test_plan import attempts, failed, manifest

SETTINGS = {"bundle_sha256": "abc", "score_threshold": 0.5}


def put_plan(output: Output, number: int, rows: pa.Table, token: str = "me") -> PutAnswer:
    header = PlanHeader(token, SETTINGS, 2, num_rows_by_date(rows))
    return output.put_plan(number, rows, header)


def rows_of(*rows: tuple[str, str, str | None]) -> pa.Table:
    return plan_rows(manifest(*rows), attempts(), failed(), [], 2)


def assert_attempts(read: Iterable[Records], *rows: tuple[str, str, int]) -> None:
    found = np.concatenate([np.zeros(0, RECORD), *read])
    assert found.tobytes() == digest_attempts(attempts(*rows)).tobytes()


@pytest.fixture(params=["local", "s3"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> Output:
    root = str(tmp_path) if request.param == "local" else request.getfixturevalue("bucket")
    return Output(f"{root}/out")


def test_a_plan_is_read_back_part_by_part(output: Output) -> None:
    rows = rows_of(
        ("a", "1", "2026-11-23"), ("b", "1", "2026-11-22"), ("c", "1", "2026-11-23"), ("d", "1", "2026-11-23")
    )
    assert put_plan(output, 1, rows) is PutAnswer.CREATED
    assert put_plan(output, 1, rows, "somebody else") is PutAnswer.EXISTS
    assert output.list_plans() == [1]
    assert output.read_token(1) == "me"
    assert output.read_token(2) is None
    parts = output.read_parts([1])
    assert parts == [
        PlannedPart(PartId(1, 0), "2026-11-22", 1),
        PlannedPart(PartId(1, 1), "2026-11-23", 2),
        PlannedPart(PartId(1, 2), "2026-11-23", 1),
    ]
    with storage.open_input(output.plan_uri(1)) as file:
        groups = [pq.ParquetFile(file).read_row_group(part.id.part) for part in parts]
    assert [group["image_uri"].to_pylist() for group in groups] == [["b"], ["a", "c"], ["d"]]
    assert groups[1]["store"].to_pylist() == ["store of a", "store of c"]


def test_planning_reads_only_the_dates_at_hand(output: Output) -> None:
    put_plan(output, 1, rows_of(("a", "1", "2026-11-22"), ("b", "1", "2026-11-23"), ("c", "1", "2026-11-22")))
    put_plan(output, 2, rows_of(("d", "1", "2026-11-23")))
    assert_attempts(output.read_planned([1, 2], {"2026-11-22"}), ("a", "1", 1), ("c", "1", 1))
    assert_attempts(output.read_planned([1, 2], {"2026-11-23"}), ("b", "1", 1), ("d", "1", 1))
    assert_attempts(output.read_planned([], {"2026-11-23"}))


def test_a_large_plan_is_read_in_slices(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maskrcnn.labelling.output.ROWS_A_READER", 5)
    monkeypatch.setattr("maskrcnn.labelling.output.ROWS_AT_ONCE", 3)
    keys = [(f"{place:02d}", "1", None) for place in range(23)]
    put_plan(output, 1, rows_of(*keys))
    read = list(output.read_planned([1], {None}))
    assert [len(records) for records in read] == [4, 4, 4, 4, 4, 3]
    assert_attempts(read, *((uri, etag, 1) for uri, etag, _ in keys))


def test_parts_and_markers_are_found_by_name(output: Output) -> None:
    dated, undated = PlannedPart(PartId(1, 0), "2026-11-22", 1), PlannedPart(PartId(2, 7), None, 1)
    for part in (dated, undated):
        storage.put(output.part_uri(part), b"x")
    assert output.part_uri(dated).endswith("/table/date=2026-11-22/part-000001-00000.parquet")
    assert output.part_uri(undated).endswith("/table/part-000002-00007.parquet")
    assert output.list_parts() == {dated.id, undated.id}


def write_part(output: Output, part: PlannedPart, rows: pa.Table) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink)
    storage.put(output.part_uri(part), sink.getvalue().to_pybytes())


def test_failed_rows_are_found_through_markers_of_their_kind_and_date(output: Output) -> None:
    today, before = PlannedPart(PartId(1, 0), "2026-11-22", 2), PlannedPart(PartId(1, 1), "2026-11-21", 1)
    write_part(output, today, failed(("a", "1", 1, "timeout"), ("b", "1", 1, "corrupt")))
    write_part(output, before, failed(("c", "1", 1, "timeout")))
    assert list(output.read_failed(["timeout"], {"2026-11-22"})) == [], "no marker, nothing opened"
    output.put_marker(today, is_transient=True)
    output.put_marker(before, is_transient=True)
    assert_attempts(output.read_failed(["timeout"], {"2026-11-22"}), ("a", "1", 1))
    assert list(output.read_failed(["corrupt"], {"2026-11-22"})) == []
    output.put_marker(today, is_transient=False)
    assert_attempts(output.read_failed(["corrupt", "timeout"], {"2026-11-22"}), ("a", "1", 1), ("b", "1", 1))


def test_a_marker_whose_part_was_never_put_is_no_failure(output: Output) -> None:
    output.put_marker(PlannedPart(PartId(1, 0), None, 1), is_transient=True)
    assert_attempts(output.read_failed(["timeout"], {None}))


def test_another_setting_than_the_plans_record_is_refused(output: Output) -> None:
    output.check_settings(SETTINGS)
    put_plan(output, 1, rows_of(("a", "1", None)))
    output.check_settings(SETTINGS)
    with pytest.raises(OutputError, match="score_threshold was 0.5 when this output was begun, and is 0.3 now"):
        output.check_settings({**SETTINGS, "score_threshold": 0.3})


def test_an_output_that_another_driver_began_meanwhile_with_other_settings_is_refused(
    tiny_bundle: str, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(b"no image")
    output = Output(str(tmp_path / "out"))
    job = LabellingJob(LabelConfig(tiny_bundle, str(tmp_path / "in"), output.uri))
    put_plan(output, 1, rows_of(("b", "1", None)))
    with pytest.raises(OutputError, match="bundle_sha256 was abc when this output was begun"):
        job.run()
    assert output.list_plans() == [1]


def test_a_folder_of_another_program_is_refused(output: Output) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"x": [1]}), sink)
    storage.put(output.plan_uri(1), sink.getvalue().to_pybytes())
    with pytest.raises(OutputError, match="has no header of this program"):
        output.check_settings(SETTINGS)


def test_a_completion_marker_grows_but_never_shrinks(output: Output) -> None:
    parts = [PlannedPart(PartId(1, 0), None, 5), PlannedPart(PartId(2, 0), None, 3)]
    uri = storage.join(output.uri, "complete", "all.json")
    output.put_complete(None, 1, parts[:1], "run-1")
    output.put_complete(None, 2, parts, "run-2")
    output.put_complete(None, 1, parts[:1], "a slow run")
    marker = json.loads(storage.read_bytes(uri))
    assert marker == {"date": None, "plans": 2, "parts": 2, "images": 8, "run_id": "run-2"}


def test_a_runs_record_holds_no_secret(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "FwoGZXIvYXdzEAzz")
    failure = "UnavailableError: https://b/part?X-Amz-Signature=0123abcd with FwoGZXIvYXdzEAzz"
    uri = output.put_run("run", {"parts": {"failures": [failure]}, "config": {"images_uri": "s3://u:p4ss@b"}})
    assert json.loads(storage.read_bytes(uri)) == {
        "parts": {"failures": ["UnavailableError: https://b/part?… with …"]}, "config": {"images_uri": "s3://…@b"},
    }  # fmt: skip
