"""Two tables are joined row by row whatever their orders, and matched as a plain search does."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn.coco import rle
from maskrcnn.coco.packed import SizedSegmentations
from maskrcnn.comparison.matching import MIN_IOU, Instances, match
from maskrcnn.comparison.tables import TablePair
from maskrcnn.labelling.current import CurrentRows
from maskrcnn.labelling.results import ImageResult
from tests.labelled_parts import HEIGHT, WIDTH, blob, labelled, write_part

NAMES = [f"{place:02d}.jpg" for place in range(60)]
RESULTS = {name: labelled([(2, 0.5, blob(place))] * (place % 3)) for place, name in enumerate(NAMES)}
ORDERS = st.lists(st.sampled_from(NAMES), unique=True, min_size=1)


def write(folder: Path, names: list[str], num_parts: int) -> CurrentRows:
    size = -(-len(names) // num_parts)
    for part in range(num_parts):
        chosen: dict[str, ImageResult] = {name: RESULTS[name] for name in names[part * size : (part + 1) * size]}
        if chosen:
            write_part(folder, chosen, part=part)
    return CurrentRows(str(folder))


@settings(deadline=None, max_examples=30)
@given(ORDERS, ORDERS, st.integers(1, 4), st.integers(1, 4))
def test_rows_of_the_same_images_stand_side_by_side(
    names_a: list[str], names_b: list[str], parts_a: int, parts_b: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        a, b = write(Path(folder) / "a", names_a, parts_a), write(Path(folder) / "b", names_b, parts_b)
        pair = TablePair(a, b)
        seen = []
        for rows_a, rows_b in pair.batches():
            assert rows_a["image_uri"].to_pylist() == rows_b["image_uri"].to_pylist()
            assert rows_a["masks"].to_pylist() == rows_b["masks"].to_pylist()
            seen += [uri.rsplit("/", 1)[1] for uri in rows_a["image_uri"].to_pylist()]
    common = set(names_a) & set(names_b)
    assert seen == [name for name in names_a if name in common]
    assert (pair.num_common, pair.num_only_a) == (len(common), len(set(names_a) - common))
    assert pair.num_only_b == len(set(names_b) - common)


BOXES = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.integers(0, 1),
        st.integers(0, WIDTH - 24),
        st.integers(0, HEIGHT - 24),
        st.integers(8, 24),
        st.integers(8, 24),
    ),
    max_size=8,
)


def to_instances(boxes: list[tuple[int, ...]]) -> Instances:
    boxes = sorted(boxes)
    masks = [np.zeros((HEIGHT, WIDTH), np.uint8) for _ in boxes]
    for mask, (_, _, x, y, w, h) in zip(masks, boxes, strict=True):
        mask[y : y + h, x : x + w] = 1
    return Instances(
        np.array([box[0] for box in boxes], np.int64),
        np.array([box[1] for box in boxes], np.int64),
        np.ones(len(boxes)),
        np.array([box[2:] for box in boxes], np.float64).reshape(-1, 4),
        SizedSegmentations.from_rles([rle.from_mask(mask) for mask in masks]),
    )


@settings(deadline=None)
@given(BOXES, BOXES, st.lists(st.booleans(), min_size=2, max_size=2))
def test_matching_is_a_plain_search_for_the_best_pair(
    boxes_a: list[tuple[int, ...]], boxes_b: list[tuple[int, ...]], has_masks: list[bool]
) -> None:
    a, b = to_instances(boxes_a), to_instances(boxes_b)
    found = match(a, b, np.array(has_masks))
    left_a, left_b = set(range(len(a.scores))), set(range(len(b.scores)))
    expected: dict[int, tuple[int, float]] = {}
    while True:
        pairs = [
            (rle.iou(a.mask(i), b.mask(j)), -i, -j)
            for i in left_a
            for j in left_b
            if (a.of_image[i], a.categories[i]) == (b.of_image[j], b.categories[j])
        ]
        if not pairs or max(pairs)[0] < MIN_IOU:
            break
        iou, i, j = max(pairs)
        expected[-i] = (-j, iou)
        left_a.remove(-i)
        left_b.remove(-j)
    # Of rectangles, boxes overlap as masks do.
    assert {i: j for i, j in enumerate(found.b_of_a.tolist()) if j >= 0} == {i: j for i, (j, _) in expected.items()}
    for i, (_, iou) in expected.items():
        assert found.ious[i] == pytest.approx(iou)
    assert set(np.flatnonzero(found.is_gained).tolist()) == left_b
