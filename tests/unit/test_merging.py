"""What is one object: on masks drawn by hand."""

from __future__ import annotations

import numpy as np
import pytest

from maskrcnn.coco.merging import Candidates, best_first, find_overlapping, group_same, unite
from maskrcnn.coco.rle import from_mask, to_bbox, to_mask

SIZE = (40, 60)


def block(x1: int, y1: int, x2: int, y2: int) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[y1:y2, x1:x2] = True
    return mask


def candidates(masks: list[np.ndarray], scores: list[float], labels: list[int] | None = None) -> Candidates:
    rles = [from_mask(mask) for mask in masks]
    xywh = np.array([to_bbox(rle) for rle in rles], np.float32).reshape(-1, 4)
    boxes = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
    return Candidates(boxes, np.array(scores, np.float32), np.array(labels or [1] * len(masks)), rles)


def kept(found: Candidates, metric: str = "iomin", threshold: float = 0.5, **options: object) -> list[list[int]]:
    """Give the objects by the indices that make them up."""
    is_cut = options.get("is_cut")
    pairs = find_overlapping(found, metric=metric, threshold=threshold)  # type: ignore[arg-type]
    order = best_first(found, is_cut)  # type: ignore[arg-type]
    groups = group_same(order, pairs, is_cut=is_cut, pieces=options.get("pieces", "nms"))  # type: ignore[arg-type]
    return [group.tolist() for group in groups]


WHOLE, PIECE = block(10, 10, 30, 20), block(10, 10, 17, 20)


def test_a_piece_overlaps_its_whole_by_iomin_and_not_by_iou() -> None:
    found = candidates([WHOLE, PIECE], [0.9, 0.8])
    assert kept(found, "iomin") == [[0]]
    assert kept(found, "iou") == [[0], [1]]
    assert kept(found, "iou", threshold=0.3) == [[0]]


def test_an_overlap_must_be_more_than_the_threshold() -> None:
    found = candidates([block(0, 0, 10, 10), block(5, 0, 15, 10)], [0.9, 0.8])
    assert kept(found, "iomin", threshold=0.5) == [[0], [1]]
    assert kept(found, "iomin", threshold=0.49) == [[0]]
    assert kept(found, "iou", threshold=1 / 3) == [[0], [1]]
    assert kept(found, "iou", threshold=0.33) == [[0]]


def test_a_cut_piece_loses_to_its_whole_however_good_its_score() -> None:
    found = candidates([PIECE, WHOLE], [0.99, 0.3])
    is_cut = np.array([True, False])
    for pieces in ("nms", "merge"):
        assert kept(found, is_cut=is_cut, pieces=pieces) == [[1]]
    assert kept(found) == [[0]]


def test_a_piece_without_a_whole_stays() -> None:
    found = candidates([PIECE, block(40, 0, 50, 10)], [0.6, 0.5])
    assert kept(found, is_cut=np.array([True, False])) == [[1], [0]]


def test_neighbours_that_touch_stay_two() -> None:
    found = candidates([block(0, 0, 10, 30), block(10, 0, 20, 30)], [0.9, 0.8])
    for metric in ("iou", "iomin"):
        assert len(kept(found, metric, threshold=0.01)) == 2


def test_categories_are_never_one_object() -> None:
    found = candidates([WHOLE, WHOLE, PIECE], [0.9, 0.8, 0.7], labels=[1, 2, 3])
    is_cut = np.array([False, False, True])
    assert kept(found, is_cut=is_cut, pieces="merge") == [[0], [1], [2]]


def test_merging_unites_two_halves_and_nms_keeps_the_better() -> None:
    halves = candidates([block(0, 5, 24, 15), block(14, 5, 50, 15)], [0.7, 0.8])
    options = {"threshold": 0.3, "is_cut": np.array([True, True])}
    assert kept(halves, pieces="nms", **options) == [[1]]  # type: ignore[arg-type]
    assert kept(halves, pieces="merge", **options) == [[1, 0]]  # type: ignore[arg-type]
    united = unite(halves, [np.array([1, 0])])
    assert united.boxes.tolist() == [[0, 5, 50, 15]]
    assert united.scores.tolist() == pytest.approx([0.8])
    assert np.array_equal(to_mask(united.rles[0]).astype(bool), block(0, 5, 50, 15))


def test_merging_unites_a_chain_of_pieces_but_no_whole_one() -> None:
    chain = candidates(
        [block(0, 0, 20, 10), block(12, 0, 32, 10), block(24, 0, 44, 10), block(36, 0, 56, 10)], [0.6, 0.7, 0.8, 0.9]
    )
    all_cut, last_whole = np.ones(4, bool), np.array([True, True, True, False])
    assert sorted(kept(chain, threshold=0.3, is_cut=all_cut, pieces="merge")[0]) == [0, 1, 2, 3]
    assert kept(chain, threshold=0.3, is_cut=last_whole, pieces="merge") == [[3], [1, 0]]


def test_the_order_of_the_input_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 30, (40, 2))
    masks = [block(x, y, x + 12, y + 9) for x, y in corners.tolist()]
    scores = rng.choice([0.3, 0.5, 0.9], 40).tolist()  # with ties
    is_cut = rng.random(40) < 0.4
    found = candidates(masks, scores)
    for pieces in ("nms", "merge"):
        expected = {frozenset(group) for group in kept(found, is_cut=is_cut, pieces=pieces)}
        assert 3 < len(expected) < 40
        for seed in range(5):
            shuffle = np.random.default_rng(seed).permutation(40)
            other = candidates([masks[i] for i in shuffle], [scores[i] for i in shuffle])
            groups = kept(other, is_cut=is_cut[shuffle], pieces=pieces)
            assert {frozenset(shuffle[group].tolist()) for group in groups} == expected


def test_overlaps_are_those_of_the_bitmaps() -> None:
    rng = np.random.default_rng(1)
    masks = [rng.random(SIZE) < 0.5 for _ in range(8)] + [np.zeros(SIZE, bool)]
    found = candidates(masks, [0.5] * 9)
    found = Candidates(np.tile(np.float32([0, 0, 60, 40]), (9, 1)), found.scores, found.labels, found.rles)
    for metric in ("iou", "iomin"):
        for threshold in (0.3, 0.335, 0.5, 0.51):
            expected = []
            for i in range(9):
                for j in range(i + 1, 9):
                    shared, areas = (masks[i] & masks[j]).sum(), (masks[i].sum(), masks[j].sum())
                    whole = min(areas) if metric == "iomin" else sum(areas) - shared
                    expected += [[i, j]] if shared > threshold * whole else []
            assert find_overlapping(found, metric=metric, threshold=threshold).tolist() == expected  # type: ignore[arg-type]


def test_without_masks_boxes_tell() -> None:
    boxes = np.float32([[0, 0, 10, 10], [0, 0, 10, 4], [5, 5, 15, 15], [50, 0, 60, 10]])
    found = Candidates(boxes, np.float32([0.9, 0.8, 0.7, 0.6]), np.ones(4, np.int64))
    assert kept(found, "iomin") == [[0], [2], [3]]
    assert kept(found, "iou", threshold=0.39) == [[0], [2], [3]]
    assert kept(found, "iou", threshold=0.41) == [[0], [1], [2], [3]]


def test_nothing_is_nothing() -> None:
    found = candidates([], [])
    assert kept(found) == []
    assert len(unite(found, [])) == 0


def test_many_masks_in_pieces_of_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = [block(x % 50, x % 31, x % 50 + 8, x % 31 + 8) for x in range(300)]
    found = candidates(masks, np.linspace(1, 0, 300).tolist())
    expected = find_overlapping(found, metric="iou", threshold=0.5).tolist()
    assert len(expected) > 300
    monkeypatch.setattr("maskrcnn.coco.merging._MAX_PAIRS_AT_ONCE", 1000)
    assert find_overlapping(found, metric="iou", threshold=0.5).tolist() == expected
