"""Polygons that are drawn again give back their masks to the pixel, whatever the masks are like."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from maskrcnn.coco import rle
from maskrcnn.coco.polygons import Outlines, trace
from maskrcnn.coco.simplify import simplify

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

Masks = NDArray[np.uint8]


@st.composite
def images(draw: st.DrawFn) -> Masks:
    """Give (N, height, width) masks of one image: noise of any density, and rings within rings with a bite taken."""
    height, width, zoom = draw(st.integers(1, 14)), draw(st.integers(1, 14)), draw(st.sampled_from([1, 1, 2, 5]))
    masks = []
    for _ in range(draw(st.integers(1, 4))):
        if draw(st.booleans()):
            mask = draw(hnp.arrays(np.uint8, (height, width), elements=st.integers(0, 1)))
        else:
            y, x = np.mgrid[:height, :width]
            to_border = np.minimum(np.minimum(y, height - 1 - y), np.minimum(x, width - 1 - x))
            mask = ((to_border // draw(st.integers(1, 2))) % 2 == draw(st.integers(0, 1))).astype(np.uint8)
            mask[draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))] ^= 1
        masks.append(mask.repeat(zoom, 0).repeat(zoom, 1))
    return np.stack(masks)


def traced(masks: Masks) -> Outlines:
    runs = [rle.decode_counts(rle.from_mask(mask)["counts"]) for mask in masks]
    return trace(runs, masks.shape[1:])


def areas_of(outlines: Outlines) -> list[float]:
    """Give the area within each outline; positive where it is walked anticlockwise, as seen on the screen."""
    return [
        float((np.roll(x, -1) * y - x * np.roll(y, -1)).sum()) / 2
        for x, y in (part.T for part in np.split(outlines.points, outlines.offsets[1:-1]))
        if len(outlines.masks)
    ]


@UNHURRIED
@given(images())
def test_exact_polygons_give_back_every_pixel(masks: Masks) -> None:
    height, width = masks.shape[1:]
    for mask, polygons in zip(masks, traced(masks).by_mask(len(masks)), strict=True):
        drawn = rle.to_mask(rle.from_polygons(polygons, height, width)) if polygons else np.zeros_like(mask)
        np.testing.assert_array_equal(drawn, mask)


@UNHURRIED
@given(images())
def test_parts_are_what_hangs_together_by_sides(masks: Masks) -> None:
    outlines = traced(masks)
    expected = [sizes_of_parts(mask) for mask in masks]
    assert np.bincount(outlines.masks, minlength=len(masks)).tolist() == [len(sizes) for sizes in expected]
    assert sorted(areas_of(outlines)) == sorted(size for sizes in expected for size in sizes)


def sizes_of_parts(mask: Masks) -> list[int]:
    """Count the pixels of each part by flooding it."""
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    sizes = []
    while left:
        flooded = [left.pop()]
        for y, x in flooded:
            for place in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if place in left:
                    left.remove(place)
                    flooded.append(place)
        sizes.append(len(flooded))
    return sizes


@UNHURRIED
@given(images())
def test_every_filling_rule_gives_the_same(masks: Masks) -> None:
    """Winding numbers at the pixels' centres: 1 within (so both rules fill), 0 without."""
    height, width = masks.shape[1:]
    for mask, polygons in zip(masks, traced(masks).by_mask(len(masks)), strict=True):
        winding = np.zeros((height, width), np.int64)
        for polygon in polygons:
            points = np.array(polygon).reshape(-1, 2)
            for (x, top), (next_x, bottom) in zip(points, np.roll(points, -1, axis=0), strict=True):
                if x == next_x:  # every pixel to the right sees this edge once
                    winding[min(top, bottom) : max(top, bottom), x:] += np.sign(bottom - top)
        np.testing.assert_array_equal(winding, mask)


@UNHURRIED
@given(images(), st.sampled_from([0.4, 0.75, 1.0, 3.0, 100.0]))
def test_simpler_outlines_stray_no_further_than_the_tolerance(masks: Masks, tolerance_px: float) -> None:
    exact = traced(masks)
    simple = simplify(exact, tolerance_px)
    np.testing.assert_array_equal(simple.masks, exact.masks)
    for index in range(len(exact.masks)):
        before, after = (each.points[each.offsets[index] : each.offsets[index + 1]] for each in (exact, simple))
        assert len(after) >= 3
        assert {tuple(point) for point in after.tolist()} <= {tuple(point) for point in before.tolist()}
        assert max_distance(before, after) <= tolerance_px + 1e-9
    for size, simpler_size in zip(areas_of(exact), areas_of(simple), strict=True):
        assert abs(simpler_size - size) <= 0.1 * size


def max_distance(points: NDArray[np.int64], outline: NDArray[np.int64]) -> float:
    """Give how far the furthest of the points lies from the outline."""
    begin, side = outline.astype(np.float64), (np.roll(outline, -1, axis=0) - outline).astype(np.float64)
    offset = points[:, None] - begin
    along = np.clip((offset * side).sum(axis=2) / np.maximum((side**2).sum(axis=1), 1e-9), 0, 1)
    return float(np.linalg.norm(offset - along[..., None] * side, axis=2).min(axis=1).max())
