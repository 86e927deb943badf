"""Planning small tables as a run does it."""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc

from maskrcnn.labelling.backlog import Backlog
from maskrcnn.labelling.digests import digest_attempts
from maskrcnn.labelling.manifest import Manifest


def to_table(manifest: Manifest) -> pa.Table:
    """Read a whole manifest."""
    return pa.Table.from_batches(manifest.batches())


def plan_all(
    listed: pa.Table,
    planned: pa.Table,
    failed: pa.Table,
    retry_kinds: Collection[str],
    rows_per_part: int,
    *,
    max_rows: int = 1000,
    rows_per_batch: int = 1000,
) -> list[pa.Table]:
    """Give every plan of a run, given whole tables of what is listed, planned and failed."""
    manifest = Manifest(listed.to_batches(rows_per_batch))
    backlog = Backlog(manifest, rows_per_part, max_rows)
    backlog.subtract(digest_attempts(planned.slice(place, 3)) for place in range(0, len(planned), 3))
    of_kind = failed.filter(pc.is_in(failed["error_kind"], value_set=pa.array(list(retry_kinds), pa.string())))
    backlog.retry([digest_attempts(of_kind)])
    plans = []
    while (rows := backlog.next_plan()) is not None:
        plans.append(rows)
        backlog.advance()
    return plans


def plan_rows(
    listed: pa.Table, planned: pa.Table, failed: pa.Table, retry_kinds: Collection[str], rows_per_part: int
) -> pa.Table:
    """Give the one plan of a run, or an empty table."""
    plans = plan_all(listed, planned, failed, retry_kinds, rows_per_part)
    assert len(plans) <= 1
    return plans[0] if plans else listed.slice(0, 0)
