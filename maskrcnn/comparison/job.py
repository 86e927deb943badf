"""One comparison: two tables, joined, matched, added up, and judged by a gate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from maskrcnn.comparison.figures import NOTHING, Figures, Tally
from maskrcnn.comparison.gate import Exceeded, Gate, find_exceeded
from maskrcnn.comparison.matching import match
from maskrcnn.comparison.rows import Vocabulary, are_comparable, have_masks, to_instances, were_labelled
from maskrcnn.comparison.tables import TablePair
from maskrcnn.comparison.worst import Difference, Worst
from maskrcnn.config import check
from maskrcnn.errors import InputError
from maskrcnn.labelling.current import CurrentRows
from maskrcnn.labelling.groups import Group, groups_of, parse_grouping

MOST_ERRORS_LISTED = 100


@dataclass(frozen=True)
class ComparisonConfig:
    """Which tables are compared, and how."""

    a_uri: str
    b_uri: str
    by: tuple[str, ...] = ()
    """Columns of A's table, and regular expressions with named groups."""
    score_threshold: float | None = None
    """Of both; None: the higher of those that the tables were labelled with."""
    num_worst: int = 24
    """Images to show."""
    gate: Gate | None = None

    def __post_init__(self) -> None:
        if self.score_threshold is not None:
            check(0 <= self.score_threshold <= 1, "score_threshold", self.score_threshold, "in [0, 1]")
        check(0 <= self.num_worst <= 500, "worst", self.num_worst, "in 0..500")


@dataclass
class ImageCounts:
    """What became of the images of both tables."""

    only_a: int = 0
    only_b: int = 0
    other_etag: int = 0
    """In both, but another version: left out."""
    other_size: int = 0
    """Of another size in B, as after another EXIF policy: left out."""
    compared: int = 0
    by_masks: int = 0
    """Of the compared; the others by boxes, since one table has no masks."""
    new_errors: int = 0
    """Labelled in A, failed in B."""
    mended: int = 0
    """Failed in A, labelled in B."""
    failed_in_both: int = 0

    @property
    def left_out_share(self) -> float | None:
        """Give what was left out as another version or size, of the images in both; None where there are none."""
        num_left_out = self.other_etag + self.other_size
        num_in_both = num_left_out + self.compared + self.new_errors + self.mended + self.failed_in_both
        return num_left_out / num_in_both if num_in_both else None

    @property
    def new_errors_share(self) -> float | None:
        """Give what B failed at, of what A had labelled; None where there was nothing."""
        num_tried = self.compared + self.other_size + self.new_errors
        return self.new_errors / num_tried if num_tried else None


@dataclass(frozen=True)
class NewError:
    """An image that A labelled and B could not."""

    image_uri: str
    error_kind: str


@dataclass(frozen=True)
class Comparison:
    """What two tables agree on."""

    config: ComparisonConfig
    score_threshold: float
    images: ImageCounts
    overall: Figures
    by_category: dict[str, Figures]
    """By name, in order of the name."""
    group_names: tuple[str, ...]
    by_group: dict[Group, Figures]
    """Of which A labelled an image that both have; those without a compared one first, then the least agreement."""
    worst: list[Difference]
    new_errors: list[NewError]
    """At most `MOST_ERRORS_LISTED`."""
    exceeded: list[Exceeded] | None
    """Limits that close the gate; None without a gate."""


def compare_tables(
    config: ComparisonConfig, on_progress: Callable[[int, int], None] = lambda num_done, num_images: None
) -> Comparison:
    """Compare two tables, a few images at a time.

    Args:
        config: which, and how.
        on_progress: told the images looked at so far, and all that both tables have.

    Raises:
        InputError: no table, options that do not fit, or a broken mask.
        StorageError: what cannot be read.
    """
    if config.gate is not None and config.gate.of_groups and not config.by:
        raise InputError("--gate", "has limits for groups, and --by is not given", remedy="give --by, or drop [group]")
    a, b = _open("A", config.a_uri), _open("B", config.b_uri)
    grouping = parse_grouping(config.by, a)
    pair = TablePair(a, b)
    threshold = _threshold(config.score_threshold, pair.lowest_fair_threshold)
    counts = ImageCounts(pair.num_only_a, pair.num_only_b, pair.num_other_etag)
    vocabulary, tally, worst = Vocabulary(), Tally(), Worst(config.num_worst)
    new_errors: list[NewError] = []
    num_done = 0
    if pair.num_common:
        on_progress(0, pair.num_common)
    num_labelled: Counter[Group] = Counter()
    for rows_a, rows_b in pair.batches(grouping.columns_read):
        _count(counts, new_errors, rows_a, rows_b)
        rows_labelled = rows_a.filter(pa.array(were_labelled(rows_a)))
        num_labelled.update(groups_of(grouping.label(rows_labelled), grouping.names))
        is_compared = pa.array(are_comparable(rows_a, rows_b))
        num_done += len(rows_a)
        on_progress(num_done, pair.num_common)
        rows_a, rows_b = rows_a.filter(is_compared), rows_b.filter(is_compared)
        groups = groups_of(grouping.label(rows_a), grouping.names)
        has_masks = have_masks(rows_a) & have_masks(rows_b)
        counts.compared += len(rows_a)
        counts.by_masks += int(has_masks.sum())
        found_a, found_b = (
            to_instances(rows, vocabulary, threshold, uri)
            for rows, uri in ((rows_a, config.a_uri), (rows_b, config.b_uri))
        )
        matches = match(found_a, found_b, has_masks)
        tally.add(groups, found_a, found_b, matches)
        if config.num_worst:
            worst.add(rows_a, groups, found_a, found_b, matches, vocabulary.names)
    overall = tally.overall()
    by_group = dict.fromkeys(num_labelled, NOTHING) | tally.by_group() if grouping.names else {}
    named = {vocabulary.names[number]: figures for number, figures in tally.by_category().items()}
    by_category = dict(sorted(named.items()))
    exceeded = None
    if config.gate is not None:
        exceeded = find_exceeded(
            config.gate,
            overall,
            by_category,
            by_group,
            group_names=grouping.names,
            num_labelled=num_labelled,
            new_errors_share=counts.new_errors_share,
            left_out_share=counts.left_out_share,
        )
    return Comparison(
        config,
        threshold,
        counts,
        overall,
        by_category,
        grouping.names,
        dict(sorted(by_group.items(), key=_by_agreement)),
        worst.listed(),
        new_errors,
        exceeded,
    )


def _open(name: str, uri: str) -> CurrentRows:
    """Open a table; what is wrong with it is told of A or B."""
    try:
        return CurrentRows(uri)
    except InputError as error:
        thing = name if error.thing == "--predictions" else f"{name}: {error.thing}"
        raise InputError(thing, error.rule, error.place, error.remedy) from error


def _threshold(wanted: float | None, lowest_fair: float) -> float:
    if wanted is None:
        return lowest_fair
    # As the tables hold it, in 32 bits.
    if np.float32(wanted) < np.float32(lowest_fair):
        rule = f"must be {lowest_fair:g} or more, which one of the tables was labelled with, got {wanted:g}"
        raise InputError("--score-threshold", rule)
    return wanted


def _count(counts: ImageCounts, new_errors: list[NewError], a: pa.Table, b: pa.Table) -> None:
    """Count what was not compared, and why."""
    is_ok_a, is_ok_b = were_labelled(a), were_labelled(b)
    is_new_error = is_ok_a & ~is_ok_b
    counts.new_errors += int(is_new_error.sum())
    counts.mended += int((~is_ok_a & is_ok_b).sum())
    counts.failed_in_both += int((~is_ok_a & ~is_ok_b).sum())
    counts.other_size += int((is_ok_a & is_ok_b & ~are_comparable(a, b)).sum())
    room = MOST_ERRORS_LISTED - len(new_errors)
    for row in b.filter(pa.array(is_new_error)).slice(0, room).select(["image_uri", "error_kind"]).to_pylist():
        new_errors.append(NewError(row["image_uri"], row["error_kind"]))


def _by_agreement(item: tuple[Group, Figures]) -> tuple[float, str]:
    group, figures = item
    if not figures.num_images:
        return -1.0, repr(group)
    return (2.0 if figures.agreement is None else figures.agreement), repr(group)
