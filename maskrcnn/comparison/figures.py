"""What two tables agree on, added up by category and by group. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrcnn.comparison.matching import Instances, Matches
from maskrcnn.labelling.groups import Group

_NAMES = ("num_a", "num_b", "num_matched", "sum_iou", "sum_score_a", "sum_score_b", "sum_shift")
_A, _B, _MATCHED, _IOU, _SCORE_A, _SCORE_B, _SHIFT = range(len(_NAMES))


@dataclass(frozen=True)
class Figures:
    """What two tables have of some images and categories."""

    num_images: int
    """That were compared; of a category, those where either table has it."""
    num_a: int
    """Instances in A; so for B."""
    num_b: int
    num_matched: int
    mean_iou: float | None
    """Of the matched; None where there are none, as for the means that follow."""
    mean_score_a: float | None
    mean_score_b: float | None
    mean_score_shift: float | None
    """Of the matched: B's score less A's."""

    @property
    def num_lost(self) -> int:
        """Count what only A has."""
        return self.num_a - self.num_matched

    @property
    def num_gained(self) -> int:
        """Count what only B has."""
        return self.num_b - self.num_matched

    @property
    def lost_share(self) -> float | None:
        """Give what of A's is lost; None where A has nothing."""
        return self.num_lost / self.num_a if self.num_a else None

    @property
    def gained_share(self) -> float | None:
        """Give what of B's is new; None where B has nothing."""
        return self.num_gained / self.num_b if self.num_b else None

    @property
    def agreement(self) -> float | None:
        """Give the share of all instances that are matched: the F1 of B with A as the truth."""
        total = self.num_a + self.num_b
        return 2 * self.num_matched / total if total else None

    @property
    def count_change(self) -> float | None:
        """Give how many more B has, as a share of A's; None where A has nothing."""
        return (self.num_b - self.num_a) / self.num_a if self.num_a else None

    def to_json(self) -> dict[str, Any]:
        """Give all numbers, those that follow from others too."""
        derived = ("num_lost", "num_gained", "lost_share", "gained_share", "agreement", "count_change")
        numbers = asdict(self) | {name: getattr(self, name) for name in derived}
        return {name: round(value, 6) if isinstance(value, float) else value for name, value in numbers.items()}


NOTHING = Figures(0, 0, 0, 0, None, None, None, None)
"""Of no image."""


def group_label(names: Sequence[str], group: Group) -> str:
    """Name a group for people: "store=north, camera=1"; two groups may have one label."""
    return ", ".join(f"{name}={'none' if value is None else value}" for name, value in zip(names, group, strict=True))


class Tally:
    """Adds up batches of compared images; grows with groups and categories, not with images."""

    def __init__(self) -> None:
        self._sums: dict[tuple[Group, int], NDArray[np.float64]] = {}
        self._images_of_category: dict[tuple[Group, int], int] = {}
        self._images: dict[Group, int] = {}

    def add(self, groups: Sequence[Group], a: Instances, b: Instances, matches: Matches) -> None:
        """Take in a batch.

        Args:
            groups: (num_images,) of its images.
            a, b, matches: as `match` takes and gives them.
        """
        for group in groups:
            self._images[group] = self._images.get(group, 0) + 1
        num_a = len(a.scores)
        rows = np.zeros((num_a + len(b.scores), len(_NAMES)))
        is_matched = matches.b_of_a >= 0
        rows[:num_a, _A], rows[num_a:, _B] = 1, 1
        rows[:num_a, _SCORE_A], rows[num_a:, _SCORE_B] = a.scores, b.scores
        rows[:num_a, _MATCHED], rows[:num_a, _IOU] = is_matched, matches.ious
        rows[:num_a, _SHIFT][is_matched] = b.scores[matches.b_of_a[is_matched]] - a.scores[is_matched]
        codes = np.concatenate([np.stack([one.of_image, one.categories], axis=1) for one in (a, b)])
        pairs, places = np.unique(codes, axis=0, return_inverse=True)
        sums = np.zeros((len(pairs), len(_NAMES)))
        np.add.at(sums, places.reshape(-1), rows)
        for (image, category), numbers in zip(pairs.tolist(), sums, strict=True):
            key = (groups[image], category)
            self._sums[key] = self._sums[key] + numbers if key in self._sums else numbers
            self._images_of_category[key] = self._images_of_category.get(key, 0) + 1

    def overall(self) -> Figures:
        """Give the figures of all images."""
        return _to_figures(sum(self._images.values()), list(self._sums.values()))

    def by_category(self) -> dict[int, Figures]:
        """Give the figures of each category that occurs, by its number."""
        sums: dict[int, list[NDArray[np.float64]]] = {}
        num_images: dict[int, int] = {}
        for (group, category), numbers in self._sums.items():
            sums.setdefault(category, []).append(numbers)
            num_images[category] = num_images.get(category, 0) + self._images_of_category[group, category]
        return {category: _to_figures(num_images[category], sums[category]) for category in sorted(sums)}

    def by_group(self) -> dict[Group, Figures]:
        """Give the figures of each group with compared images."""
        sums: dict[Group, list[NDArray[np.float64]]] = {group: [] for group in self._images}
        for (group, _), numbers in self._sums.items():
            sums[group].append(numbers)
        return {group: _to_figures(self._images[group], numbers) for group, numbers in sums.items()}


def _to_figures(num_images: int, sums: Sequence[NDArray[np.float64]]) -> Figures:
    total = np.sum([np.zeros(len(_NAMES)), *sums], axis=0).tolist()
    num_a, num_b, num_matched = (int(total[place]) for place in (_A, _B, _MATCHED))

    def mean(place: int, count: int) -> float | None:
        return total[place] / count if count else None

    return Figures(
        num_images,
        num_a,
        num_b,
        num_matched,
        mean_iou=mean(_IOU, num_matched),
        mean_score_a=mean(_SCORE_A, num_a),
        mean_score_b=mean(_SCORE_B, num_b),
        mean_score_shift=mean(_SHIFT, num_matched),
    )
