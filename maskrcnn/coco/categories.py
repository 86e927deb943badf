"""Categories: their ids, sparse as in the file, and the network's labels, contiguous from 1 (0 is background)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maskrcnn.config import UnusualValueWarning
from maskrcnn.errors import AnnotationError, InputError
from maskrcnn.printable import printable


@dataclass(frozen=True)
class CategoryMap:
    """The categories of a file in ascending order of id; the label of the n-th is n, counted from 1."""

    ids: tuple[int, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def label_of(self, category_id: int) -> int:
        """Give the network's label of a category.

        Raises:
            AnnotationError: the file has no such category.
        """
        return int(self.labels_of([category_id])[0])

    def category_id_of(self, label: int) -> int:
        """Give the category of a label, 1 to the number of categories."""
        if not 1 <= label <= len(self.ids):
            raise AnnotationError("label", f"must be in [1, {len(self.ids)}], got {label}")
        return self.ids[label - 1]

    def name_of(self, category_id: int) -> str:
        """Give the name of a category."""
        return self.names[self.label_of(category_id) - 1]

    def labels_of(self, category_ids: ArrayLike) -> NDArray[np.int64]:
        """Give the labels of many categories.

        Args:
            category_ids: (N,) integers.

        Returns:
            (N,) int64.

        Raises:
            AnnotationError: the file has no such category.
        """
        wanted = np.asarray(category_ids, np.int64)
        is_known = np.isin(wanted, self._ids)
        if not is_known.all():
            raise AnnotationError("category_id", f"must be one of the file's categories, got {wanted[~is_known][0]}")
        return np.searchsorted(self._ids, wanted) + 1

    @cached_property
    def _ids(self) -> NDArray[np.int64]:
        return np.array(self.ids, np.int64)


def check_category_names(names: Mapping[int, str], place: str, categories: CategoryMap, truth_place: str) -> None:
    """Warn of an id that is one category of predictions and another of the truth: both are matched by id alone.

    Args:
        names: of the predictions' categories, by id.
        place: where these come from, for messages.
        categories: of the truth.
        truth_place: the annotation file, for messages.

    Raises:
        InputError: no id that both have has one name.
    """
    common = [
        (one, names[one].strip(), name.strip())
        for one, name in zip(categories.ids, categories.names, strict=True)
        if one in names
    ]
    differing = [(one, name, true) for one, name, true in common if name.casefold() != true.casefold()]
    if not differing:
        return
    category_id, name, true = differing[0]
    rule = f"is {printable(name, 60)!r} in {place} and {printable(true, 60)!r} in {truth_place}"
    remedy = "give the annotations the ids that the model was trained with"
    if len(differing) == len(common):
        raise InputError(f"category {category_id}", f"{rule}, and no id has the same name in both", remedy=remedy)
    text = f"category {category_id} {rule}, and categories are matched by id; {remedy}"
    warnings.warn(text, UnusualValueWarning, stacklevel=3)
