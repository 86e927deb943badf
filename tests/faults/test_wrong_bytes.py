"""Of bodies with a flipped bit, or shortened with a Content-Length that agrees, none is taken for the object."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from maskrcnn import storage
from maskrcnn.errors import IntegrityError
from maskrcnn.labelling.digests import digest_attempts
from maskrcnn.labelling.maker import PartWriter
from maskrcnn.labelling.output import Output
from maskrcnn.labelling.plan import PartId, PlannedPart
from maskrcnn.labelling.plan_files import PlanHeader, num_rows_by_date
from maskrcnn.storage import object_store
from tests.faults.figures import record
from tests.faults.proxy import Fault, FaultProxy, Rule
from tests.faults.scale import scale
from tests.labelled_parts import maker_settings

NUM_WRONG = scale(500, 10_000)
NUM_OBJECTS = 100
NUM_PARTS = 20
ROWS_PER_PART = 2000


@pytest.fixture
def proxy(bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    with FaultProxy(int(os.environ["AWS_ENDPOINT_URL"].rsplit(":", 1)[1]), seed=20261126) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


@pytest.mark.timeout(3600)
def test_no_wrong_body_is_accepted(proxy: FaultProxy, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bodies = {f"{bucket}/{place:03d}.jpg": os.urandom(200 + place * 50) for place in range(NUM_OBJECTS)}
    for uri, body in bodies.items():
        storage.put(uri, body)
    listed = [storage.stat(uri) for uri in bodies]
    rules = [proxy.add(Rule(fault, key=r"\.jpg", rate=0.4)) for fault in (Fault.FLIPPED_BIT, Fault.SHORT_BODY)]
    num_read = num_refused = num_accepted = 0
    while sum(rule.num_applied for rule in rules) < NUM_WRONG:
        for answer in storage.read_objects(listed, max_in_flight=16):
            if isinstance(answer.outcome, IntegrityError):
                num_refused += 1
                continue
            assert isinstance(answer.outcome, bytes)
            num_read += 1
            num_accepted += answer.outcome != bodies[listed[answer.place].uri]
        with ThreadPoolExecutor(16) as threads:
            for uri, body in zip(bodies, threads.map(_read_or_none, bodies), strict=True):
                num_accepted += body is not None and body != bodies[uri]
    assert num_accepted == 0
    assert num_read > 0
    assert num_refused > 0
    record("wrong-bytes", wrong=sum(rule.num_applied for rule in rules), refused=num_refused, accepted=num_accepted)


def _read_or_none(uri: str) -> bytes | None:
    try:
        return storage.read_bytes(uri)
    except IntegrityError:
        return None


@pytest.mark.timeout(3600)
def test_nothing_wrong_is_read_from_a_plan(proxy: FaultProxy, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large plans are read by ranges, which have no MD5: their blocks and their footers have checksums."""
    monkeypatch.setattr(object_store, "LARGE_ABOVE_BYTES", -1)
    names = [f"{bucket}/in/{place:06d}-{os.urandom(8).hex()}.jpg" for place in range(NUM_PARTS * ROWS_PER_PART)]
    rows = pa.table(
        {
            "part": pa.array(np.repeat(np.arange(NUM_PARTS), ROWS_PER_PART), pa.int32()),
            "image_uri": names,
            "etag": [os.urandom(16).hex() for _ in names],
            "size": pa.array(np.arange(len(names)), pa.int64()),
            "attempt": pa.array(np.ones(len(names)), pa.int16()),
            "date": pa.nulls(len(names), pa.string()),
        }
    )
    header = PlanHeader("token", {"masks": "full"}, ROWS_PER_PART, num_rows_by_date(rows))
    Output(bucket).put_plan(1, rows, header)
    whole = pq.read_table(io.BytesIO(storage.read_bytes(Output(bucket).plan_uri(1))))
    digests = digest_attempts(whole)

    figures: dict[str, int] = {}
    for reader, is_right in {
        "worker": lambda: _read_all_keys(bucket).equals(whole),
        "driver": lambda: np.array_equal(np.concatenate(list(Output(bucket).read_planned([1], {None}))), digests),
        "driver_of_headers": lambda: Output(bucket).header(1) == header,
    }.items():
        rule = proxy.add(Rule(Fault.FLIPPED_BIT, key="plans", rate=0.2))
        num_read = num_accepted = 0
        while rule.num_applied < NUM_WRONG // 5:
            try:
                num_accepted += not is_right()
            except IntegrityError:
                continue
            num_read += 1
        proxy.remove(rule)
        assert num_accepted == 0
        assert num_read > 0
        figures |= {f"wrong_for_a_{reader}": rule.num_applied}
    record("wrong-bytes-in-plans", **figures, accepted=0)


def _read_all_keys(output_uri: str) -> pa.Table:
    writer = PartWriter(maker_settings(output_uri, bundle_uri=""))
    parts = [PlannedPart(PartId(1, part), None, ROWS_PER_PART) for part in range(NUM_PARTS)]
    return pa.concat_tables(map(writer.read_keys, parts))
