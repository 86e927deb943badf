"""Counts over all current rows of a table, a few rows at a time: failures, categories, scores, sizes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

COLUMNS = ("image_uri", "status", "error_kind", "error_message", "instances", "score_threshold")
SCORE_BINS = 50
MOST_EXAMPLES = 5
SIDE_BINS_PER_OCTAVE = 2


@dataclass
class CategoryTally:
    """One category's detections."""

    name: str
    num_detections: int = 0
    score_sum: float = 0.0
    side_sum: float = 0.0

    @property
    def mean_score(self) -> float:
        """The mean of their scores."""
        return self.score_sum / self.num_detections

    @property
    def mean_side_px(self) -> float:
        """The mean of their sizes, each the root of an area, px."""
        return self.side_sum / self.num_detections


@dataclass
class Failures:
    """The images that failed for one reason."""

    num_images: int = 0
    examples: list[tuple[str, str]] = field(default_factory=list)
    """The first few URIs and messages."""


@dataclass
class Tally:
    """Adds up rows."""

    num_labelled: int = 0
    num_detections: int = 0
    num_by_image: Counter[int] = field(default_factory=Counter)
    """Images by their number of detections."""
    score_counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(SCORE_BINS, np.int64))
    """(SCORE_BINS,) detections by score, bins of equal width over [0, 1]."""
    side_counts: Counter[int] = field(default_factory=Counter)
    """Detections by the root of their area, bin n from 2^(n / SIDE_BINS_PER_OCTAVE) px."""
    categories: dict[int, CategoryTally] = field(default_factory=dict)
    failures: dict[str, Failures] = field(default_factory=dict)
    lowest_threshold: float | None = None

    @property
    def num_failed(self) -> int:
        """Count the images that failed."""
        return sum(one.num_images for one in self.failures.values())

    @property
    def num_images(self) -> int:
        """Count all images."""
        return self.num_labelled + self.num_failed

    def add(self, rows: pa.Table) -> None:
        """Take in some rows, with at least COLUMNS."""
        is_labelled = pc.equal(rows["status"], "ok")
        self._add_failures(rows.filter(pc.invert(is_labelled)))
        labelled = rows.filter(is_labelled)
        self.num_labelled += len(labelled)
        counts = pc.list_value_length(labelled["instances"]).to_numpy()
        self.num_by_image.update(
            dict(zip(*(each.tolist() for each in np.unique(counts, return_counts=True)), strict=True))
        )
        thresholds = pc.min(rows["score_threshold"]).as_py()
        if thresholds is not None:
            self.lowest_threshold = min(thresholds, self.lowest_threshold or thresholds)
        self._add_detections(pc.list_flatten(labelled["instances"]).combine_chunks())

    def _add_failures(self, failed: pa.Table) -> None:
        for row in failed.select(["image_uri", "error_kind", "error_message"]).to_pylist():
            failures = self.failures.setdefault(row["error_kind"] or "unknown", Failures())
            failures.num_images += 1
            if len(failures.examples) < MOST_EXAMPLES:
                failures.examples.append((row["image_uri"], row["error_message"] or ""))

    def _add_detections(self, instances: pa.StructArray) -> None:
        if not len(instances):
            return
        self.num_detections += len(instances)
        scores = instances.field("score").to_numpy().astype(np.float64)
        # A 32-bit 0.9 lies a little below 0.9, and belongs above it.
        bins = np.floor(scores * SCORE_BINS + 1e-5).astype(np.int64).clip(0, SCORE_BINS - 1)
        self.score_counts += np.bincount(bins, minlength=SCORE_BINS)
        sides = _sides(instances)
        octaves = np.floor(SIDE_BINS_PER_OCTAVE * np.log2(np.maximum(sides, 1))).astype(np.int64)
        self.side_counts.update(
            dict(zip(*(each.tolist() for each in np.unique(octaves, return_counts=True)), strict=True))
        )
        ids = instances.field("category_id").to_numpy()
        found, first, group, counts = np.unique(ids, return_index=True, return_inverse=True, return_counts=True)
        names = instances.field("category").take(pa.array(first)).to_pylist()
        sums = (np.bincount(group, values) for values in (scores, sides))
        for category_id, name, count, score_sum, side_sum in zip(found.tolist(), names, counts, *sums, strict=True):
            one = self.categories.setdefault(category_id, CategoryTally(name))
            one.num_detections += int(count)
            one.score_sum += float(score_sum)
            one.side_sum += float(side_sum)


def _sides(instances: pa.StructArray) -> NDArray[np.float64]:
    """Give the root of each area, px: the mask's, or the box's where there is none."""
    boxes = instances.field("w").to_numpy().astype(np.float64) * instances.field("h").to_numpy()
    areas = instances.field("area")
    is_known = areas.is_valid().to_numpy(zero_copy_only=False)
    masks = areas.fill_null(0).to_numpy()
    sides: NDArray[np.float64] = np.sqrt(np.where(is_known, masks, np.maximum(boxes, 0)))
    return sides


def even_bins(counts: Counter[int], most_bins: int) -> tuple[list[int], list[int]]:
    """Gather counts of whole numbers in bins of one width, as few numbers wide as possible.

    Args:
        counts: by number, 0 or more.
        most_bins: how many bins there may be.

    Returns:
        The first number of each bin, and how many fall into it.
    """
    largest = max(counts, default=0)
    width = -(-(largest + 1) // most_bins)
    binned = [0] * (largest // width + 1)
    for number, count in counts.items():
        binned[number // width] += count
    return [place * width for place in range(len(binned))], binned
