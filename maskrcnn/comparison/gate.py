"""The gate: limits on a comparison, from a small TOML file, and which of them are exceeded.

min_images = 100                 # fewer compared images say nothing
min_matched_iou = 0.9            # mean IoU of matched instances
min_agreement = 0.95             # matched share of all instances
max_lost_share = 0.05            # of A's instances
max_gained_share = 0.05          # of B's instances
max_count_change = 0.1           # either way, of A's count
max_new_errors_share = 0.01      # of the images that A labelled and B tried; so without this line
max_left_out_share = 0.01        # of the images in both, those of another version or size; so without this line

[every_category]                 # limits that every category must keep
min_instances = 50               # of A and B together: rarer categories are not judged
[category.can]                   # other limits for one category, by its name
[group]                          # limits that every group of --by must keep
min_instances = 50               # likewise
min_compared_share = 0.5         # of the images that A labelled and B tried; so without this line
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from maskrcnn import storage
from maskrcnn.comparison.figures import NOTHING, Figures, group_label
from maskrcnn.errors import InputError, StorageError
from maskrcnn.labelling.groups import Group

_SHARE_LIMITS = ("min_matched_iou", "min_agreement", "max_lost_share", "max_gained_share")
_FIGURE_LIMITS = (*_SHARE_LIMITS, "max_count_change")
_IMAGE_LIMITS = ("max_new_errors_share", "max_left_out_share")
_COMPARED = "min_compared_share"
_COUNT_LIMITS = ("min_images", "min_instances")
_ALLOWED = {
    "": (*_FIGURE_LIMITS, *_IMAGE_LIMITS, "min_images"),
    "every_category": (*_FIGURE_LIMITS, "min_instances"),
    "category": _FIGURE_LIMITS,
    "group": (*_FIGURE_LIMITS, _COMPARED, "min_instances"),
}
_VALUES = {
    "min_matched_iou": "mean_iou",
    "min_agreement": "agreement",
    "max_lost_share": "lost_share",
    "max_gained_share": "gained_share",
    "max_count_change": "count_change",
}
DEFAULT_MAX_NEW_ERRORS_SHARE = 0.01
DEFAULT_MAX_LEFT_OUT_SHARE = 0.01
DEFAULT_MIN_COMPARED_SHARE = 0.5
Limits = Mapping[str, float]


@dataclass(frozen=True)
class Gate:
    """What a comparison must keep; limits by their names."""

    overall: Limits = field(default_factory=dict)
    of_categories: Limits = field(default_factory=dict)
    """For every category."""
    by_category: Mapping[str, Limits] = field(default_factory=dict)
    """For some categories, by name, in place of those for every one."""
    of_groups: Limits = field(default_factory=dict)
    """For every group."""


@dataclass(frozen=True)
class Exceeded:
    """A limit that closes the gate."""

    where: str
    """All images, a category or a group."""
    limit: str
    """Its name."""
    bound: float
    value: float | None
    """None where there is nothing to judge."""

    def __str__(self) -> str:
        limit = f"{self.limit} = {self.bound:g}"
        if self.value is None:
            return f"{self.where}: nothing to judge by {limit}"
        kind, _, name = self.limit.partition("_")
        return f"{self.where}: {name} is {self.value:.4g}, {'below' if kind == 'min' else 'above'} {limit}"


def load_gate(uri: str) -> Gate:
    """Read limits.

    Raises:
        InputError: when the file cannot be read, or holds something else.
    """
    try:
        return parse_gate(storage.read_bytes(uri), uri)
    except StorageError as error:
        raise InputError("--gate", f"cannot be read: {error.reason}", error.uri) from error


def parse_gate(body: bytes, place: str) -> Gate:
    """Read limits from TOML.

    Args:
        body: the file.
        place: where it lies, for messages.

    Raises:
        InputError: naming the key, the rule and the place.
    """
    try:
        said = tomllib.loads(body.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError("--gate", f"is not TOML: {error}", place) from error
    every_category, categories, group = (said.pop(name, {}) for name in ("every_category", "category", "group"))
    for name, table in (("every_category", every_category), ("category", categories), ("group", group)):
        if not isinstance(table, dict):
            raise InputError(name, f"must be a table, as [{name}], got {table!r:.80}", place)
    for name, table in categories.items():
        if not isinstance(table, dict):
            raise InputError(f"category.{name}", f"must be a table, as [category.{name}], got {table!r:.80}", place)
    gate = Gate(
        overall=_checked(said, "", "", place),
        of_categories=_checked(every_category, "every_category", "every_category.", place),
        by_category={
            name: _checked(table, "category", f"category.{name}.", place) for name, table in categories.items()
        },
        of_groups=_checked(group, "group", "group.", place),
    )
    limits = [gate.overall, gate.of_categories, *gate.by_category.values(), gate.of_groups]
    if all(name in _COUNT_LIMITS for some in limits for name in some):
        raise InputError("--gate", f"must hold a limit: {', '.join(_ALLOWED[''])}", place)
    return gate


def find_exceeded(
    gate: Gate,
    overall: Figures,
    by_category: Mapping[str, Figures],
    by_group: Mapping[Group, Figures],
    *,
    group_names: Sequence[str],
    num_labelled: Mapping[Group, int],
    new_errors_share: float | None,
    left_out_share: float | None,
) -> list[Exceeded]:
    """Find the limits that close the gate; one over nothing is closed.

    Args:
        gate: the limits.
        overall: of all compared images.
        by_category: by name.
        by_group: of each group of which A labelled an image that both have, `NOTHING` where none was compared.
        group_names: of the groups' values.
        num_labelled: images of each group that A labelled and B tried.
        new_errors_share: of the images that A labelled and B tried, those that B could not label; None without any.
        left_out_share: of the images in both, those left out as another version or size; None without any.
    """
    exceeded: list[Exceeded] = []
    least = max(gate.overall.get("min_images", 1), 1)
    if overall.num_images < least:
        exceeded.append(Exceeded("all images", "min_images", least, overall.num_images))
    share_bound = gate.overall.get("max_new_errors_share", DEFAULT_MAX_NEW_ERRORS_SHARE)
    is_over_nothing = new_errors_share is None and "max_new_errors_share" in gate.overall
    if is_over_nothing or (new_errors_share is not None and new_errors_share > share_bound):
        exceeded.append(Exceeded("all images", "max_new_errors_share", share_bound, new_errors_share))
    left_out_bound = gate.overall.get("max_left_out_share", DEFAULT_MAX_LEFT_OUT_SHARE)
    if left_out_share is not None and left_out_share > left_out_bound:
        exceeded.append(Exceeded("all images", "max_left_out_share", left_out_bound, left_out_share))
    exceeded += _exceeded_by(gate.overall, overall, "all images")
    num_judged = sum(name != "min_images" for name in gate.overall)
    for name, figures in (dict.fromkeys(gate.by_category, NOTHING) | dict(by_category)).items():
        own = gate.by_category.get(name, {})
        common = gate.of_categories if _is_judged(figures, gate.of_categories) else {}
        limits = {**common, **own}
        exceeded += _exceeded_by(limits, figures, f"category {name}")
        num_judged += _num_limits(limits)
    for group, figures in by_group.items() if gate.of_groups else ():
        where = f"group {group_label(group_names, group)}"
        num_judged += _COMPARED in gate.of_groups
        compared_share = figures.num_images / num_labelled[group]
        compared_bound = gate.of_groups.get(_COMPARED, DEFAULT_MIN_COMPARED_SHARE)
        if compared_share < compared_bound:
            exceeded.append(Exceeded(where, _COMPARED, compared_bound, compared_share))
        if not figures.num_images or _is_judged(figures, gate.of_groups):
            exceeded += _exceeded_by(gate.of_groups, figures, where)
            num_judged += _num_limits(gate.of_groups)
    if not num_judged:
        least = max(limits.get("min_instances", 1) for limits in (gate.of_categories, gate.of_groups))
        exceeded.append(Exceeded("every category and group", "min_instances", least, None))
    return exceeded


def _num_limits(limits: Limits) -> int:
    return sum(name in _FIGURE_LIMITS for name in limits)


def _is_judged(figures: Figures, limits: Limits) -> bool:
    return figures.num_a + figures.num_b >= max(limits.get("min_instances", 1), 1)


def _exceeded_by(limits: Limits, figures: Figures, where: str) -> list[Exceeded]:
    exceeded = []
    for limit, name in _VALUES.items():
        if limit not in limits:
            continue
        value, bound = getattr(figures, name), limits[limit]
        if _is_undefined_but_good(limit, figures):
            continue
        is_kept = value is not None and (value >= bound if limit.startswith("min_") else abs(value) <= bound)
        if not is_kept:
            exceeded.append(Exceeded(where, limit, bound, value))
    return exceeded


def _is_undefined_but_good(limit: str, figures: Figures) -> bool:
    """Say whether there is nothing to lose, or nothing gained, while the other table has something."""
    if limit == "max_lost_share":
        return not figures.num_a and figures.num_b > 0
    return limit == "max_gained_share" and not figures.num_b and figures.num_a > 0


def _checked(table: Mapping[str, Any], kind: str, prefix: str, place: str) -> dict[str, float]:
    for name, value in table.items():
        if name not in _ALLOWED[kind]:
            raise InputError(f"{prefix}{name}", f"must be one of {', '.join(_ALLOWED[kind])}", place)
        rule = _broken_rule(name, value)
        if rule is not None:
            raise InputError(f"{prefix}{name}", f"must be {rule}, got {value!r:.80}", place)
    return dict(table)


def _broken_rule(name: str, value: Any) -> str | None:
    """Say what a limit's value must be; None where it is."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if name in _COUNT_LIMITS:
        return None if is_number and isinstance(value, int) and value >= 1 else "a whole number from 1"
    if name == "max_count_change":
        return None if is_number and 0 <= value < float("inf") else "a number from 0"
    return None if is_number and 0 <= value <= 1 else "a number in [0, 1]"
