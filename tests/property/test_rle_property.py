"""RLE against pycocotools, over random masks, random batches and hostile bytes."""

from __future__ import annotations

import numpy as np
import pycocotools.mask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from maskrcnn.coco import rle
from maskrcnn.coco.runs import decode_counts_batch
from maskrcnn.errors import AnnotationError

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

SIDES = st.integers(1, 40)


@st.composite
def masks(draw: st.DrawFn) -> NDArray[np.uint8]:
    """Noise of any density, blocky so that short and long runs both occur."""
    height, width, zoom = draw(SIDES), draw(SIDES), draw(st.sampled_from([1, 3, 20]))
    density, seed = draw(st.sampled_from([0.0, 0.02, 0.5, 0.98, 1.0])), draw(st.integers(0, 2**32 - 1))
    noise = np.random.default_rng(seed).random((height, width)) < density
    return np.asfortranarray(noise.repeat(zoom, 0).repeat(zoom, 1), np.uint8)


@UNHURRIED
@given(masks())
def test_masks_survive_the_round_trip_and_agree_with_pycocotools(mask: NDArray[np.uint8]) -> None:
    theirs = pycocotools.mask.encode(mask)
    ours = rle.from_mask(mask)
    assert ours == theirs
    assert rle.encode_counts(rle.check_rle(ours)) == theirs["counts"]
    np.testing.assert_array_equal(rle.to_mask(ours), mask)
    assert rle.area(ours) == pycocotools.mask.area(theirs)
    assert rle.to_bbox(ours) == pycocotools.mask.toBbox(theirs).tolist()


@UNHURRIED
@given(masks(), st.data())
def test_some_columns_are_a_slice_of_all(mask: NDArray[np.uint8], data: st.DataObject) -> None:
    begin = data.draw(st.integers(0, mask.shape[1]))
    end = data.draw(st.integers(begin, mask.shape[1]))
    columns = rle.to_mask_columns(rle.from_mask(mask), begin, end)
    assert columns.dtype == np.uint8
    np.testing.assert_array_equal(columns, mask[:, begin:end])


@UNHURRIED
@given(st.lists(masks(), max_size=12))
def test_a_batch_encodes_as_each_of_its_masks(batch: list[NDArray[np.uint8]]) -> None:
    expected = [pycocotools.mask.encode(mask)["counts"] for mask in batch]
    runs = [rle.decode_counts(counts) for counts in expected]
    offsets = np.cumsum([0, *map(len, runs)])
    assert rle.encode_counts_batch(np.concatenate([np.zeros(0, np.int64), *runs]), offsets) == expected


@UNHURRIED
@given(st.lists(hnp.arrays(np.int64, st.integers(0, 12), elements=st.integers(0, rle.MAX_MASK_PIXELS)), max_size=8))
def test_a_batch_decodes_as_each_of_its_masks(batch: list[NDArray[np.int64]]) -> None:
    runs, offsets = decode_counts_batch([rle.encode_counts(each) for each in batch])
    assert [each.tolist() for each in np.split(runs, offsets[1:-1])][: len(batch)] == [each.tolist() for each in batch]
    assert offsets.tolist() == np.cumsum([0, *map(len, batch)]).tolist()


@UNHURRIED
@given(hnp.arrays(np.int64, st.integers(0, 30), elements=st.integers(0, rle.MAX_MASK_PIXELS)))
def test_any_runs_survive_compression(runs: NDArray[np.int64]) -> None:
    np.testing.assert_array_equal(rle.decode_counts(rle.encode_counts(runs)), runs)


@UNHURRIED
@given(st.lists(st.integers(0, 9), min_size=1, max_size=30).filter(any))
def test_runs_of_zero_change_no_pixel(runs: list[int]) -> None:
    total = sum(runs)
    expected = np.repeat(np.arange(len(runs)) % 2, runs)
    encoded = rle.from_uncompressed({"size": [total, 1], "counts": runs})
    assert (rle.decode_counts(encoded["counts"])[1:] > 0).all()
    np.testing.assert_array_equal(rle.to_mask(encoded)[:, 0], expected)
    np.testing.assert_array_equal(pycocotools.mask.decode(encoded)[:, 0], expected)


@UNHURRIED
@given(
    st.one_of(st.binary(max_size=40), st.lists(st.integers(48, 111), max_size=40).map(bytes), st.text(max_size=20)),
    SIDES,
    SIDES,
)
def test_hostile_counts_are_refused_or_give_a_mask_of_the_right_size(
    counts: bytes | str, height: int, width: int
) -> None:
    try:
        encoded = rle.from_segmentation({"size": [height, width], "counts": counts}, height, width)
    except AnnotationError:
        return
    mask = rle.to_mask(encoded)
    assert mask.shape == (height, width)
    np.testing.assert_array_equal(mask, pycocotools.mask.decode(encoded))


@UNHURRIED
@given(st.data(), SIDES, SIDES)
def test_damaged_strings_are_refused_or_give_a_mask_of_the_right_size(
    data: st.DataObject, height: int, width: int
) -> None:
    mask = data.draw(hnp.arrays(np.uint8, (height, width), elements=st.integers(0, 1)))
    text = bytearray(rle.from_mask(mask)["counts"])
    at = data.draw(st.integers(0, len(text) - 1))
    text[at] = data.draw(st.integers(48, 111))
    try:
        encoded = rle.from_segmentation({"size": [height, width], "counts": bytes(text)}, height, width)
    except AnnotationError:
        return
    np.testing.assert_array_equal(rle.to_mask(encoded), pycocotools.mask.decode(encoded))


NUMBERS = st.one_of(st.floats(), st.integers(), st.floats(-50, 100))


@UNHURRIED
@given(st.lists(st.lists(NUMBERS, max_size=12), max_size=4), SIDES, SIDES)
def test_hostile_polygons_are_refused_or_drawn(polygons: list[list[float]], height: int, width: int) -> None:
    try:
        encoded = rle.from_polygons(polygons, height, width)
    except AnnotationError:
        return
    assert rle.to_mask(encoded).shape == (height, width)
