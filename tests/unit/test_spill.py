from __future__ import annotations

import gc
import os
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest

from maskrcnn.labelling import digests, spill
from maskrcnn.labelling.digests import build_records, digest, places_in
from maskrcnn.labelling.spill import BatchSpill, RecordSpill, in_groups


@pytest.fixture
def scratch_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where files go, all of them: nothing stays in memory."""
    monkeypatch.setattr(spill, "IN_MEMORY_BYTES", 1)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def batch(*values: int) -> pa.RecordBatch:
    return pa.record_batch({"value": pa.array(values, pa.int64())})


def records(*texts: str) -> digests.Records:
    return build_records(digest(pa.array(texts, pa.string())), np.arange(len(texts)))


def open_files() -> set[str]:
    return {os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")}


def test_batches_come_back_to_several_readers_at_once(scratch_path: Path) -> None:
    batches = BatchSpill()
    for start in range(5):
        batches.append(batch(start, start + 10))
    first, second = iter(batches), iter(batches)
    seen = [next(first), next(first), next(second), next(first), next(second)]
    assert [one["value"].to_pylist() for one in seen] == [[0, 10], [1, 11], [0, 10], [2, 12], [1, 11]]
    batches.append(batch(7))
    assert [one["value"][0].as_py() for one in batches] == [0, 1, 2, 3, 4, 7]


def test_files_have_no_name_and_end_with_their_owner(scratch_path: Path) -> None:
    batches = BatchSpill()
    batches.append(batch(*range(1000)))
    assert list(scratch_path.iterdir()) == []
    assert any(name.startswith(str(scratch_path)) for name in open_files())
    del batches
    gc.collect()
    assert not any(name.startswith(str(scratch_path)) for name in open_files())


@pytest.mark.parametrize("records_at_once", [1, 50, 10_000])
def test_equal_digests_meet_in_one_group_in_their_order(
    scratch_path: Path, monkeypatch: pytest.MonkeyPatch, records_at_once: int
) -> None:
    monkeypatch.setattr(spill, "RECORDS_AT_ONCE", records_at_once)
    monkeypatch.setattr(spill, "_BLOCK_RECORDS", 64)
    left, right = RecordSpill(), RecordSpill()
    texts = [f"key {place % 300}" for place in range(1000)]
    for start in range(0, 1000, 40):
        some = records(*texts[start : start + 40])
        some["number"] += start
        left.add(some)
    right.add(records(*(f"key {place}" for place in range(100, 400))))
    assert (len(left), len(right)) == (1000, 300)
    numbers, num_groups = [], 0
    for ours, theirs in in_groups(left, right):
        num_groups += 1
        is_shared = places_in(ours["digest"], theirs["digest"]) >= 0
        for text in {texts[number] for number in ours["number"]}:
            of_text = [number for number in ours["number"] if texts[number] == text]
            assert of_text == [place for place in range(1000) if texts[place] == text]
        assert [int(texts[number].removeprefix("key ")) >= 100 for number in ours["number"]] == is_shared.tolist()
        numbers.extend(ours["number"].tolist())
    assert sorted(numbers) == list(range(1000))
    assert num_groups == {1: 256, 50: 26, 10_000: 1}[records_at_once]


def test_one_long_text_does_not_widen_all_others() -> None:
    texts = pa.array(["a", "b" * 500, "c", "", "d" * 3])
    expected = digest(texts)
    with mock.patch.object(digests, "_BYTES_AT_ONCE", 8):
        assert digest(texts).tobytes() == expected.tobytes()


def test_digests_of_numbered_names_spread_evenly() -> None:
    texts = pa.array([f"s3://bucket/photo-{place:06d}.jpg" for place in range(40_000)])
    found = digest(texts)
    assert len(np.unique(found)) == 40_000
    share = np.bincount(found.view(np.uint8)[:: digests.DIGEST.itemsize], minlength=256) / 40_000
    assert 0.5 / 256 < share.min() <= share.max() < 2 / 256, "some partitions would not fit into memory"
