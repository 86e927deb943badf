"""Which detections and images are exported. Pure functions; knows no files."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maskrcnn.errors import InputError
from maskrcnn.exports.settings import SampleBy


@dataclass(frozen=True)
class Selection:
    """Which detections are exported."""

    score_threshold: float | None = None
    categories: tuple[str, ...] = ()
    """Names or ids; none: all."""

    def marks(
        self, scores: NDArray[np.float32], category_ids: NDArray[np.int32], names: Mapping[int, str]
    ) -> NDArray[np.bool_]:
        """Mark the detections that are exported.

        Args:
            scores, category_ids: (N,)
            names: of every category that occurs, by id.

        Returns:
            (N,) bool.
        """
        is_selected = np.ones(len(scores), np.bool_)
        if self.score_threshold is not None:
            # As the table holds it: a score written as 0.9 is a little less than 0.9 in 64 bits.
            is_selected &= scores >= np.float32(self.score_threshold)
        if self.categories:
            wanted = [one for one, name in names.items() if name in self.categories or str(one) in self.categories]
            is_selected &= np.isin(category_ids, wanted)
        return is_selected

    def check_categories(self, names: Mapping[int, str]) -> None:
        """Refuse categories that there are not.

        Args:
            names: of every category there is, by id.

        Raises:
            InputError: naming the first unknown one, what there is, and what may have been meant.
        """
        known = {*names.values(), *map(str, names)}
        for word in self.categories:
            if word not in known:
                listed = ", ".join(f"{one} {name}" for one, name in sorted(names.items())) or "none"
                similar = difflib.get_close_matches(word, sorted(known), n=1)
                remedy = f"did you mean {similar[0]}?" if similar else ""
                raise InputError("--categories", f"must be names or ids of {listed}, got {word}", "", remedy)


def mean_scores(
    scores: NDArray[np.float32], is_selected: NDArray[np.bool_], counts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Give each image's certainty: the mean score of its selected detections, infinity without any.

    Args:
        scores, is_selected: (N,) of all images' detections, one image after the other.
        counts: (num_images,) detections of each image.
    """
    image = np.repeat(np.arange(len(counts)), counts)[is_selected]
    num_selected = np.bincount(image, minlength=len(counts))
    sums = np.bincount(image, weights=scores[is_selected], minlength=len(counts))
    return np.where(num_selected > 0, sums / np.maximum(num_selected, 1), np.inf)


def draw_sample(certainties: NDArray[np.float64], size: int, sample_by: SampleBy, seed: int) -> NDArray[np.int64]:
    """Choose images for review.

    Args:
        certainties: (num_images,) as `mean_scores` gives them.
        size: how many; all where there are fewer.
        sample_by: the least certain first, or at random.
        seed: of the random choice.

    Returns:
        (min(size, num_images),) their places, in the order of review.
    """
    if sample_by == "least-certain":
        return np.argsort(certainties, kind="stable")[:size]
    return np.random.default_rng(seed).permutation(len(certainties))[:size]


def number_rows(is_ok: NDArray[np.bool_], sample: Sequence[int] | NDArray[np.int64] | None) -> NDArray[np.int64]:
    """Number the exported images from 0.

    Args:
        is_ok: (num_rows,) whether the row's image was labelled.
        sample: places among the labelled images in the order of review; None: all, in the table's order.

    Returns:
        (num_rows,) int64, -1 for rows that are not exported.
    """
    rows = np.flatnonzero(is_ok)
    chosen = rows if sample is None else rows[np.asarray(sample, np.int64)]
    numbers = np.full(len(is_ok), -1)
    numbers[chosen] = np.arange(len(chosen))
    return numbers
