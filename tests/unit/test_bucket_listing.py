"""Listings that break off, lie about their end, know no offset or come unsorted: each key comes once, or an error."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn.errors import StorageError
from maskrcnn.storage import bucket_listing
from maskrcnn.storage.bucket_listing import list_chunks
from maskrcnn.storage.outages import StoreWatch


class Listings:
    """Stands for the client: gives keys in chunks, and fails where it is told."""

    def __init__(self, paths: list[str], faults: dict[int, str], *, knows_offset: bool = True) -> None:
        self.paths, self.faults, self.knows_offset = paths, faults, knows_offset
        self.num_chunks = self.num_listings = 0

    def list(self, _: Any, key: str | None, *, offset: str | None, chunk_size: int, **__: Any) -> Iterator[Any]:
        self.num_listings += 1
        paths = [path for path in self.paths if not self.knows_offset or offset is None or path > offset]
        for start in range(0, len(paths), 3):
            self.num_chunks += 1
            match self.faults.get(self.num_chunks):
                case "broken":
                    raise OSError("connection reset")
                case "error page":
                    return
            chunk = paths[start : start + 3]
            sizes = [0 if path.endswith("/") else 1 for path in chunk]
            yield pa.record_batch({"path": [path.removesuffix("/") for path in chunk], "size": sizes})


def listed(paths: list[str], faults: dict[int, str], uri: str = "s3://b/in", **options: Any) -> list[str]:
    listings = Listings(paths, faults, **options)
    watch = StoreWatch("s3://b", None, sleep=lambda _: None)  # type: ignore[arg-type]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bucket_listing, "obstore", SimpleNamespace(list=listings.list))
        return [path for chunk in list_chunks(None, watch, "in", uri) for path in chunk["path"].to_pylist()]


@settings(deadline=None)
@given(
    st.sets(
        st.text("ab-/é\U0001f600", min_size=1, max_size=5).filter(lambda key: "//" not in key and key[0] != "/"),
        max_size=20,
    ),
    st.dictionaries(st.integers(1, 12), st.just("broken"), max_size=3),
    st.booleans(),
)
def test_whatever_breaks_off_each_key_comes_once(paths: set[str], faults: dict[int, str], knows_offset: bool) -> None:
    keys = sorted(paths, key=str.encode)
    found = listed(keys, faults, knows_offset=knows_offset)
    assert len(found) == len(set(found))
    images = {key for key in keys if not key.endswith("/")}
    assert [path for path in found if path in images] == sorted(images, key=str.encode)
    assert set(found) <= images | {key.removesuffix("/") for key in keys}


@pytest.mark.parametrize("place", [1, 2, 3, 4])
def test_an_error_page_is_not_the_end(place: int) -> None:
    paths = [f"{number:02d}" for number in range(10)]
    assert listed(paths, {place: "error page"}) == paths


def test_a_marker_at_the_end_brings_nothing_back() -> None:
    assert listed(["d/shelf-1.jpg", "d/shelf.jpg", "d/shelf/"], {}) == ["d/shelf-1.jpg", "d/shelf.jpg"]
    keys = ["d/a.jpg", "d/b.jpg", "d/b0.jpg", "d/shelf-1.jpg", "d/shelf.jpg", "d/shelf/", "d/shelf/x.jpg"]
    for place in range(1, 6):
        assert listed(keys, {place: "broken"}).count("d/shelf-1.jpg") == 1


def test_keys_that_come_unsorted_come_once_too() -> None:
    for paths in (["b", "c", "d", "a", "f", "e", "0"], ["m", "a", "z"]):
        for knows_offset in (True, False):
            assert listed(paths, {}, knows_offset=knows_offset) == paths


def test_a_listing_of_unsorted_keys_that_breaks_off_is_an_error() -> None:
    with pytest.raises(StorageError, match="does not come in order"):
        listed(["b", "c", "d", "a", "f", "e", "0"], {3: "broken"})
