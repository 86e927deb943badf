"""The gate: which limits close it, what it says, and which files it refuses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from maskrcnn.comparison.figures import NOTHING, Figures
from maskrcnn.comparison.gate import Gate, find_exceeded, load_gate, parse_gate
from maskrcnn.errors import InputError
from maskrcnn.labelling.groups import Group
from tests.conftest import PROJECT_ROOT

GOOD = Figures(100, 200, 202, 190, mean_iou=0.95, mean_score_a=0.9, mean_score_b=0.9, mean_score_shift=0.0)
NO_INSTANCES = Figures(5, 0, 0, 0, None, None, None, None)
ONLY_B = Figures(5, 0, 9, 0, None, None, 0.9, None)


def judge(
    toml: str,
    overall: Figures = GOOD,
    *,
    errors: float | None = 0.0,
    left_out: float | None = 0.0,
    by_category: dict[str, Figures] | None = None,
    by_group: dict[Group, Figures] | None = None,
    num_labelled: dict[Group, int] | None = None,
) -> list[str]:
    exceeded = find_exceeded(
        parse_gate(toml.encode(), "gate.toml"),
        overall,
        by_category or {},
        by_group or {},
        group_names=("store",),
        num_labelled={group: figures.num_images or 1 for group, figures in (by_group or {}).items()}
        | (num_labelled or {}),
        new_errors_share=errors,
        left_out_share=left_out,
    )
    return [str(one) for one in exceeded]


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("min_matched_iou = 0.95", []),
        ("min_matched_iou = 0.96", ["all images: matched_iou is 0.95, below min_matched_iou = 0.96"]),
        ("max_lost_share = 0.05", []),
        ("max_lost_share = 0.04", ["all images: lost_share is 0.05, above max_lost_share = 0.04"]),
        ("max_gained_share = 0.05", ["all images: gained_share is 0.05941, above max_gained_share = 0.05"]),
        ("max_count_change = 0.01", []),
        ("max_count_change = 0", ["all images: count_change is 0.01, above max_count_change = 0"]),
        ("min_agreement = 0.95", ["all images: agreement is 0.9453, below min_agreement = 0.95"]),
        ("min_images = 101\nmin_agreement = 0", ["all images: images is 100, below min_images = 101"]),
    ],
)
def test_a_limit_closes_the_gate_beyond_its_bound_and_not_at_it(toml: str, said: list[str]) -> None:
    assert judge(toml) == said


def test_new_errors_close_the_gate() -> None:
    assert judge("max_new_errors_share = 0.01", errors=0.01) == []
    said = ["all images: new_errors_share is 0.02, above max_new_errors_share = 0.01"]
    assert judge("max_new_errors_share = 0.01", errors=0.02) == said
    assert judge("min_agreement = 0.5", errors=0.02) == said
    assert judge("min_agreement = 0.5", errors=0.01) == []
    assert judge("max_new_errors_share = 0.5", errors=0.5) == []


def test_a_gate_over_nothing_is_closed() -> None:
    said = judge("max_lost_share = 1.0", NOTHING, errors=None)
    assert said == [
        "all images: images is 0, below min_images = 1",
        "all images: nothing to judge by max_lost_share = 1",
    ]
    assert len(judge("max_new_errors_share = 1.0", NOTHING, errors=None)) == 2
    empty_pages = Figures(50, 0, 0, 0, None, None, None, None)
    assert judge("min_matched_iou = 0.0", empty_pages) == ["all images: nothing to judge by min_matched_iou = 0"]


def test_a_category_has_limits_of_its_own_and_one_that_is_not_there_closes() -> None:
    toml = "[category.can]\nmax_lost_share = 0.1\n[category.box]\nmax_gained_share = 0.5\nmin_matched_iou = 0.5"
    assert judge(toml, by_category={"can": GOOD, "box": GOOD, "bag": NOTHING}) == []
    said = judge(toml, by_category={"can": GOOD})
    assert "category box: nothing to judge by max_gained_share = 0.5" in said
    said = judge(toml, by_category={"can": ONLY_B, "box": ONLY_B})
    assert said == [
        "category box: nothing to judge by min_matched_iou = 0.5",
        "category box: gained_share is 1, above max_gained_share = 0.5",
    ]


def test_every_category_is_judged_by_its_own_limits_first() -> None:
    bad = Figures(9, 10, 10, 1, 0.9, 0.9, 0.9, 0.0)
    found = {"can": bad, "box": bad, "rare": NOTHING}
    toml = "[every_category]\nmax_lost_share = 0.5\n"
    assert judge(toml, by_category=found) == [
        "category can: lost_share is 0.9, above max_lost_share = 0.5",
        "category box: lost_share is 0.9, above max_lost_share = 0.5",
    ]
    own = "[category.can]\nmax_lost_share = 0.95\n"
    assert judge(toml + own, by_category=found) == ["category box: lost_share is 0.9, above max_lost_share = 0.5"]
    assert judge("min_agreement = 0\n" + toml + "min_instances = 21", by_category=found) == []


def test_every_group_is_judged_but_small_and_empty_ones() -> None:
    bad = Figures(9, 10, 10, 1, 0.9, 0.9, 0.9, 0.0)
    groups: dict[Group, Figures] = {("north",): GOOD, ("south",): bad, ("new",): NO_INSTANCES}
    toml = "[group]\nmax_lost_share = 0.5\n"
    assert judge(toml, by_group=groups) == ["group store=south: lost_share is 0.9, above max_lost_share = 0.5"]
    assert judge(toml + "min_instances = 20", by_group=groups) == [
        "group store=south: lost_share is 0.9, above max_lost_share = 0.5"
    ]
    assert judge("min_agreement = 0\n" + toml + "min_instances = 21", by_group={("south",): bad}) == []


def test_a_group_of_which_nothing_was_compared_closes_the_limits_for_groups() -> None:
    said = judge("[group]\nmin_instances = 50\nmax_lost_share = 0.5", by_group={("north",): GOOD, ("south",): NOTHING})
    assert said == [
        "group store=south: compared_share is 0, below min_compared_share = 0.5",
        "group store=south: nothing to judge by max_lost_share = 0.5",
    ]


def test_a_group_of_which_b_failed_at_most_closes_however_few_instances_are_left() -> None:
    few = Figures(2, 6, 6, 6, 1.0, 0.9, 0.9, 0.0)
    toml = "min_agreement = 0.9\n[group]\nmin_instances = 50\nmax_lost_share = 0.5"
    south: Group = ("south",)
    said = judge(toml, by_group={south: few}, num_labelled={south: 150})
    assert said == ["group store=south: compared_share is 0.01333, below min_compared_share = 0.5"]
    assert judge(toml, by_group={south: few}, num_labelled={south: 4}) == []
    assert judge(toml + "\nmin_compared_share = 0.01", by_group={south: few}, num_labelled={south: 150}) == []
    assert judge("min_agreement = 0.9", by_group={south: few}, num_labelled={south: 150}) == []
    assert judge("[group]\nmin_compared_share = 0.5", by_group={south: few}, num_labelled={south: 4}) == []


def test_a_null_and_a_group_named_none_are_judged_each() -> None:
    bad = Figures(9, 10, 10, 1, 0.9, 0.9, 0.9, 0.0)
    for groups in ({(None,): bad, ("none",): GOOD}, {("none",): GOOD, (None,): bad}):
        assert judge("[group]\nmax_lost_share = 0.5", by_group=dict(groups)) == [
            "group store=none: lost_share is 0.9, above max_lost_share = 0.5"
        ]


def test_images_left_out_close_any_gate_beyond_one_percent_or_what_it_says() -> None:
    assert judge("max_lost_share = 0.5", left_out=0.01) == []
    assert judge("max_lost_share = 0.5", left_out=0.02) == [
        "all images: left_out_share is 0.02, above max_left_out_share = 0.01"
    ]
    assert judge("max_left_out_share = 0.1", left_out=0.1) == []
    assert judge("max_left_out_share = 0", left_out=0.1) == [
        "all images: left_out_share is 0.1, above max_left_out_share = 0"
    ]


def test_a_gate_of_which_no_limit_finds_enough_to_judge_is_closed() -> None:
    toml = "[every_category]\nmin_instances = 999\nmax_lost_share = 1\n[group]\nmin_instances = 500\nmax_lost_share = 1"
    said = judge(toml, by_category={"can": GOOD}, by_group={("north",): GOOD})
    assert said == ["every category and group: nothing to judge by min_instances = 999"]
    assert judge(toml + "\nmax_count_change = 1", by_category={"can": GOOD}) == said
    assert judge("min_agreement = 0\n" + toml, by_category={"can": GOOD}) == []


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("max_lost = 0.1", "max_lost must be one of min_matched_iou, min_agreement, "),
        ("max_lost_share = 1.1", r"max_lost_share must be a number in \[0, 1\], got 1.1, in gate.toml"),
        ("max_lost_share = '0.1'", r"max_lost_share must be a number in \[0, 1\], got '0.1', in gate.toml"),
        ("max_lost_share = nan", r"max_lost_share must be a number in \[0, 1\], got nan"),
        ("max_lost_share = true", r"max_lost_share must be a number in \[0, 1\], got True"),
        ("max_count_change = inf", "max_count_change must be a number from 0, got inf"),
        ("min_images = 0", "min_images must be a whole number from 1, got 0"),
        ("min_images = 2.5", "min_images must be a whole number from 1, got 2.5"),
        ("category = 3", r"category must be a table, as \[category\], got 3"),
        ("category.can = 3", r"category.can must be a table, as \[category.can\], got 3"),
        ("[category.can]\nmin_images = 3", "category.can.min_images must be one of min_matched_iou, "),
        ("[group]\nmax_lost_share = -1", r"group.max_lost_share must be a number in \[0, 1\], got -1"),
        ("[group]\nmin_instances = 5", "--gate must hold a limit: min_matched_iou, "),
        ("", "--gate must hold a limit: "),
        ("min_images = 5", "--gate must hold a limit: "),
        ("max_lost_share = ", "--gate is not TOML: "),
        ("\xff", "--gate is not TOML: "),
    ],
)
def test_another_file_is_refused_in_one_line(toml: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as refused:
        parse_gate(toml.encode("latin-1"), "gate.toml")
    assert "\n" not in str(refused.value)
    assert refused.value.place == "gate.toml"


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--gate cannot be read: .*, in .*/none.toml"):
        load_gate(str(tmp_path / "none.toml"))


def test_the_example_is_a_gate() -> None:
    example = PROJECT_ROOT / "deploy" / "gate.toml"
    gate = load_gate(str(example))
    assert gate != Gate()
    assert not gate.by_category
    assert not gate.of_groups
    without_signs = re.sub(r"^# (?=\[|\w+ = )", "", example.read_text(), flags=re.MULTILINE)
    full = parse_gate(without_signs.encode(), "gate.toml")
    assert (set(full.by_category), full.of_groups["min_instances"]) == ({"can"}, 50)


def test_the_example_opens_for_a_table_and_itself_whatever_its_categories() -> None:
    gate = (PROJECT_ROOT / "deploy" / "gate.toml").read_text()
    same = Figures(100, 200, 200, 200, 1.0, 0.9, 0.9, 0.0)
    assert judge(gate, same, by_category={"shoe": same, "hat": same}) == []
