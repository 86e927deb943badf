"""Rings to draw: holes are rings of their own, and no line joins them to the outline."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn.coco import rle
from maskrcnn.report.outlines import Ring, split_at_slits, trace_rings
from tests.labelled_parts import blob


def signed_area(ring: Ring) -> float:
    x, y = np.array(ring, np.float64).reshape(-1, 2).T
    return float((np.roll(x, -1) * y - x * np.roll(y, -1)).sum() / 2)


def sides(ring: Ring) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    points = [(int(x), int(y)) for x, y in np.array(ring).reshape(-1, 2)]
    return list(zip(points, [*points[1:], points[0]], strict=True))


def rings_of(mask: np.ndarray, tolerance_px: float = 0.0) -> list[Ring]:
    [rings] = trace_rings([rle.check_rle(rle.from_mask(mask))], mask.shape, tolerance_px)  # type: ignore[arg-type]
    return rings


def test_a_frame_is_two_rings_without_a_slit() -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[2:18, 3:27] = 1
    mask[6:10, 8:20] = 0
    rings = rings_of(mask)
    assert len(rings) == 2
    assert sorted(abs(signed_area(ring)) for ring in rings) == [4 * 12, 16 * 24]


def test_an_empty_mask_has_no_ring_and_the_others_keep_their_place() -> None:
    empty, full = np.zeros((4, 5), np.uint8), np.ones((4, 5), np.uint8)
    runs = [rle.check_rle(rle.from_mask(mask)) for mask in (empty, full)]
    assert trace_rings(runs, (4, 5), 1.0) == [[], [[0, 0, 0, 4, 5, 4, 5, 0]]]
    assert trace_rings([], (4, 5), 1.0) == []


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_the_rings_of_a_ragged_mask_enclose_its_pixels(seed: int) -> None:
    mask = blob(seed)
    rings = rings_of(mask)
    assert sum(signed_area(ring) for ring in rings) == mask.sum()
    walked = [side for ring in rings for side in sides(ring)]
    backwards = {(end, begin) for begin, end in walked}
    assert not backwards & set(walked)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_simplified_rings_still_show_no_slit(seed: int) -> None:
    walked = [side for ring in rings_of(blob(seed), 1.0) for side in sides(ring)]
    assert not {(end, begin) for begin, end in walked} & set(walked)


def test_an_outline_without_slits_stays_as_it_is() -> None:
    outline = [(0, 0), (0, 4), (5, 4), (5, 0)]
    assert split_at_slits(outline) == [outline]
