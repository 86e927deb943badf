"""The images on which two tables differ most, kept while all are looked at."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from maskrcnn.coco import rle
from maskrcnn.comparison.matching import Instances, Matches
from maskrcnn.labelling.groups import Group


@dataclass(frozen=True)
class Found:
    """An instance of one table."""

    category: str
    score: float
    mask: rle.Rle
    """Its box, filled, where the table has no mask."""
    iou: float
    """With its match; 0 where there is none."""


@dataclass(frozen=True)
class Difference:
    """What two tables have of one image."""

    image_uri: str
    group: Group
    size: tuple[int, int]
    """Height and width, px."""
    cost: float
    """Lost and gained instances, and what the matched ones lack of an IoU of 1."""
    a: tuple[Found, ...]
    b: tuple[Found, ...]

    @property
    def num_lost(self) -> int:
        """Count what only A has."""
        return sum(one.iou == 0 for one in self.a)

    @property
    def num_gained(self) -> int:
        """Count what only B has."""
        return sum(one.iou == 0 for one in self.b)


class Worst:
    """Keeps the images of the highest cost; of equal ones those that came first.

    Args:
        most: how many.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._heap: list[tuple[float, int, Difference]] = []
        self._order = itertools.count(0, -1)

    def add(
        self,
        rows: pa.Table,
        groups: Sequence[Group],
        a: Instances,
        b: Instances,
        matches: Matches,
        names: Sequence[str],
    ) -> None:
        """Take in a batch.

        Args:
            rows: its images: image_uri, height, width.
            groups: (num_images,)
            a, b, matches: as `match` takes and gives them.
            names: of the categories, by number.
        """
        costs = _costs(len(rows), a, b, matches)
        b_ious = np.zeros(len(b.scores))
        b_ious[matches.b_of_a[matches.b_of_a >= 0]] = matches.ious[matches.b_of_a >= 0]
        for image in np.flatnonzero(costs > 0).tolist():
            if len(self._heap) == self._most and costs[image] <= self._heap[0][0]:
                continue
            row = rows.slice(image, 1).select(["image_uri", "height", "width"]).to_pylist()[0]
            size = (row["height"], row["width"])
            one = Difference(
                row["image_uri"],
                groups[image],
                size,
                float(costs[image]),
                _found(a, image, matches.ious, names, size),
                _found(b, image, b_ious, names, size),
            )
            push = heapq.heappush if len(self._heap) < self._most else heapq.heappushpop
            push(self._heap, (one.cost, next(self._order), one))

    def listed(self) -> list[Difference]:
        """Give them, the worst first."""
        return [one for _, _, one in sorted(self._heap, key=lambda item: item[:2], reverse=True)]


def _costs(num_images: int, a: Instances, b: Instances, matches: Matches) -> NDArray[np.float64]:
    lacking = np.bincount(a.of_image, weights=1 - matches.ious, minlength=num_images)
    gained = np.bincount(b.of_image, weights=matches.is_gained, minlength=num_images)
    return np.add(lacking, gained, dtype=np.float64)


def _found(
    side: Instances, image: int, ious: NDArray[np.float64], names: Sequence[str], size: tuple[int, int]
) -> tuple[Found, ...]:
    found = []
    for index in np.flatnonzero(side.of_image == image).tolist():
        mask = side.mask(index)
        if not mask["counts"]:
            x, y, w, h = side.boxes[index].tolist()
            mask = rle.from_polygons([[x, y, x + w, y, x + w, y + h, x, y + h]], *size)
        name, score = names[side.categories[index]], float(side.scores[index])
        found.append(Found(name, score, mask, float(ious[index])))
    return tuple(found)
