"""What a gallery page knows of all images at once, packed: names, and each instance's score, category and outcome.

Columns of numbers travel as base64 of little-endian bytes, which a browser turns into typed arrays in no time.
"""

from __future__ import annotations

import base64
import posixpath
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maskrcnn.report.outcomes import Outcomes

SCORE_STEPS = 10_000
OK, FAILED, NO_PICTURE = 0, 1, 2


@dataclass(frozen=True)
class ShownImage:
    """One image of the gallery."""

    uri: str
    size: tuple[int, int] | None
    """(height, width) px; None of one that failed."""
    reason: str | None = None
    """Why there are no detections, or no picture."""
    category_ids: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """(D,)"""
    scores: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    """(D,)"""
    outcomes: Outcomes | None = None
    """None where there is no truth."""
    truth_category_ids: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """(G,)"""

    @property
    def state(self) -> int:
        """Say what there is to see."""
        if self.size is None:
            return FAILED
        return OK if self.reason is None else NO_PICTURE


class GalleryIndex:
    """Collects the images of a gallery, in order.

    Args:
        folder: how the folders of their files begin, below ``gallery/``; no two reports' are the same.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._uris: list[str] = []
        self._reasons: dict[int, str] = {}
        self._columns: dict[str, list[NDArray[Any]]] = {}
        self._is_judged = False

    def __len__(self) -> int:
        return len(self._uris)

    @property
    def num_without_picture(self) -> int:
        """Count the labelled images whose photo could not be read."""
        return sum(int(states[0] == NO_PICTURE) for states in self._columns.get("states", []))

    def add(self, image: ShownImage) -> None:
        """Add the next image."""
        if image.reason is not None:
            self._reasons[len(self)] = image.reason
        self._uris.append(image.uri)
        outcomes = image.outcomes
        self._is_judged |= outcomes is not None
        scores = steps_of(image.scores)
        columns = {
            "states": np.array([image.state]),
            "sizes": np.array(image.size or (0, 0)),
            "counts": np.array([len(scores)]),
            "scores": scores,
            "category_ids": image.category_ids,
            "outcomes": np.zeros(len(scores), np.uint8) if outcomes is None else outcomes.kinds,
            "truth_counts": np.array([len(image.truth_category_ids)]),
            "truth_category_ids": image.truth_category_ids,
            "truth_scores": np.zeros(0, np.int64) if outcomes is None else _found_at(outcomes.finders, scores),
        }
        for name, column in columns.items():
            self._columns.setdefault(name, []).append(column)

    def to_value(self, category_names: dict[int, str]) -> dict[str, Any]:
        """Give what the page's script takes.

        Args:
            category_names: of every category that occurs, by id.
        """
        categories = sorted(category_names)
        prefix = common_folder(self._uris)

        def pack(name: str, dtype: str) -> str:
            return pack_numbers(np.concatenate([np.zeros(0, np.int64), *self._columns.get(name, [])]), dtype)

        def pack_labels(name: str) -> str:
            ids = np.concatenate([np.zeros(0, np.int64), *self._columns.get(name, [])])
            return pack_numbers(np.searchsorted(np.array(categories, np.int64), ids), "<u2")

        value = {
            "folder": self.folder,
            "prefix": prefix,
            "names": [uri[len(prefix) :] for uri in self._uris],
            "reasons": self._reasons,
            "categories": [category_names[category_id] for category_id in categories],
            "score_steps": SCORE_STEPS,
            "states": pack("states", "u1"),
            "sizes": pack("sizes", "<u4"),
            "counts": pack("counts", "<u4"),
            "scores": pack("scores", "<u2"),
            "labels": pack_labels("category_ids"),
        }
        if self._is_judged:
            value |= {
                "outcomes": pack("outcomes", "u1"),
                "truth_counts": pack("truth_counts", "<u4"),
                "truth_labels": pack_labels("truth_category_ids"),
                "truth_scores": pack("truth_scores", "<u2"),
            }
        return value


def steps_of(scores: ArrayLike) -> NDArray[np.int64]:
    """Give scores in whole steps, rounded down, so that a threshold keeps what it keeps elsewhere.

    Args:
        scores: (N,) float32 in [0, 1]; 0.9 is as near to 0.9 as 32 bits allow, and counts as 0.9.
    """
    exact = np.asarray(scores, np.float64) * SCORE_STEPS
    return np.floor(exact + 1e-3).clip(0, SCORE_STEPS).astype(np.int64)


def pack_numbers(numbers: NDArray[Any], dtype: str) -> str:
    """Pack numbers as base64 of a little-endian type."""
    return base64.b64encode(numbers.astype(dtype).tobytes()).decode()


def common_folder(uris: list[str]) -> str:
    """Give the longest folder that all URIs lie below, with its slash; empty for none."""
    if not uris:
        return ""
    common = posixpath.commonprefix([min(uris), max(uris)])
    return common[: common.rfind("/") + 1]


def _found_at(finders: NDArray[np.int64], scores: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give each object's finder's score plus one step, 0 where nothing has found it."""
    found = np.zeros(len(finders), np.int64)
    found[finders >= 0] = scores[finders[finders >= 0]] + 1
    return found
