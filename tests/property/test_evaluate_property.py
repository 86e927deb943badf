"""Small random sets: every number is pycocotools', and boundaries are those of the plain definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from maskrcnn.coco import rle
from maskrcnn.coco.annotations import parse_coco
from maskrcnn.coco.evaluate import IouType, evaluate
from maskrcnn.coco.evaluate.boundary import boundary_of, boundary_width, erode
from tests.peers import numbers_of, pycocotools_numbers

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=150)


def draw_blob(rng: np.random.Generator, height: int, width: int) -> NDArray[np.bool_]:
    """Draw one or two rectangles; it may meet the image's edge, and reach across it."""
    mask = np.zeros((height, width), np.bool_)
    for _ in range(rng.integers(1, 3)):
        y, x = rng.integers(height), rng.integers(width)
        mask[y : y + rng.integers(1, height + 1), x : x + rng.integers(1, width + 1)] = True
    return mask


def draw_set(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Draw few shapes used over and over, so that overlaps and scores are often equal; with and without boxes."""
    rng = np.random.default_rng(seed)
    height, width = [(12, 12), (40, 60), (150, 130)][rng.integers(3)]
    image_ids = rng.choice(50, rng.integers(1, 5), replace=False).tolist()
    category_ids = rng.choice(20, rng.integers(1, 4), replace=False).tolist()
    pool = [draw_blob(rng, height, width) for _ in range(6)]
    annotations: list[dict[str, Any]] = []
    predictions: list[dict[str, Any]] = []

    def describe(mask: NDArray[np.bool_], image_id: int) -> dict[str, Any]:
        encoded = rle.from_mask(mask)
        found = {"image_id": image_id, "category_id": int(rng.choice(category_ids))}
        return {**found, "bbox": rle.to_bbox(encoded), "segmentation": rle.to_json(encoded)}

    for image_id in image_ids:
        for _ in range(rng.integers(7)):
            mask = pool[rng.integers(6)]
            extra = {"id": len(annotations) + 1, "area": int(mask.sum()), "iscrowd": int(rng.random() < 0.25)}
            annotations.append({**describe(mask, image_id), **extra})
        for _ in range(rng.integers(10)):
            mask = pool[rng.integers(6)]
            if rng.random() < 0.5:
                mask = mask & draw_blob(rng, height, width)
            if rng.random() < 0.3:
                mask = np.roll(mask, rng.integers(-2, 3), rng.integers(2))
            predictions.append({**describe(mask, image_id), "score": [0.1, 0.3, 0.5, 0.9][rng.integers(4)]})
    if rng.random() < 0.4:
        for row in predictions:
            del row["bbox"]
    images = [{"id": each, "file_name": f"{each}.png", "height": height, "width": width} for each in image_ids]
    categories = [{"id": each, "name": str(each)} for each in category_ids]
    return {"images": images, "annotations": annotations, "categories": categories}, predictions


@UNHURRIED
@given(st.integers(0, 2**32), st.sampled_from([[1, 10, 100], [1, 2], [3], [2, 5, 300]]))
def test_every_number_is_that_of_pycocotools(seed: int, limits: list[int]) -> None:
    document, predictions = draw_set(seed)
    metrics = evaluate(parse_coco(document, "truth.json"), predictions, max_detections=limits)
    for iou_type in ("bbox", "segm"):
        row = metrics[iou_type]
        ours = numbers_of(row)
        if predictions:  # pycocotools cannot have none
            assert ours == pytest.approx(pycocotools_numbers(document, predictions, iou_type, limits), abs=1e-9)
        else:
            assert set(ours) <= {0.0, -1.0}


@settings(UNHURRIED, max_examples=60)
@given(st.integers(0, 2**32))
def test_an_analysis_accounts_for_every_truth_and_detection(seed: int) -> None:
    document, predictions = draw_set(seed)
    dataset = parse_coco(document, "truth.json")
    types: list[IouType] = ["bbox", "segm", "boundary"]
    plain = evaluate(dataset, predictions, iou_types=types)
    metrics = evaluate(dataset, predictions, iou_types=types, with_analysis=True)
    num_truths = int((~dataset.iscrowd).sum())
    for name, row in metrics.items():
        assert {key: row[key] for key in plain[name]} == plain[name]
        matrix = np.array(row["confusion"]["matrix"])
        assert matrix[:-1].sum() == num_truths
        assert matrix[-1, -1] == 0
        best = row["best_f1"]["overall"]
        assert best["num_truths"] == num_truths
        threshold = best["score_threshold"]
        kept = [one for one in predictions if one["score"] >= threshold]
        assert matrix[:, :-1].sum() <= len(kept)
        counts, shares = row["errors"]["counts"], row["errors"]["shares"]
        if best["f1"] > 0:
            num_right = best["recall"] * num_truths
            num_counted = num_right / best["precision"]
            assert sum(counts.values()) - counts["missed"] == pytest.approx(num_counted - num_right)
            assert counts["missed"] <= num_truths - num_right + 1e-9
            assert all(one["f1"] <= 1 for one in row["best_f1"]["per_category"].values())
        assert sum(shares.values()) == pytest.approx(1 if any(counts.values()) else 0)
        for curve in row["curves"]["per_category"].values():
            assert (np.diff(curve["precision_50"]) <= 0).all()
            assert (np.diff(curve["score_threshold_50"]) <= 0).all()


@UNHURRIED
@given(st.integers(0, 2**32), st.integers(1, 5))
def test_erosion_keeps_what_is_surrounded(seed: int, reach: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 24, 2).tolist()
    mask = draw_blob(rng, height, width)
    padded = np.pad(mask, reach)
    expected = np.array(
        [[padded[y : y + 2 * reach + 1, x : x + 2 * reach + 1].all() for x in range(width)] for y in range(height)]
    )
    assert (erode(mask.astype(np.uint8), reach) == expected).all()


@UNHURRIED
@given(st.integers(0, 2**32))
def test_a_boundary_is_a_mask_without_its_inside(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 90, 2).tolist()
    mask = draw_blob(rng, height, width) & (rng.random((height, width)) < 0.999)
    expected = mask & ~erode(mask.astype(np.uint8), boundary_width(height, width)).astype(np.bool_)
    boundary = boundary_of(rle.from_mask(mask))
    assert boundary == rle.from_mask(expected)  # to the byte
