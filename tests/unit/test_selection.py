from __future__ import annotations

import numpy as np
import pytest

from maskrcnn.errors import InputError
from maskrcnn.exports.selection import Selection, draw_sample, mean_scores, number_rows

NAMES = {2: "can", 5: "box", 9: "2"}
SCORES = np.array([0.9, 0.5, 0.3], np.float32)
CATEGORY_IDS = np.array([2, 5, 9], np.int32)


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(), [True, True, True]),
        (Selection(score_threshold=0.5), [True, True, False]),
        (Selection(score_threshold=0.9), [True, False, False]),
        (Selection(categories=("box",)), [False, True, False]),
        (Selection(categories=("5", "can")), [True, True, False]),
        (Selection(categories=("2",)), [True, False, True]),  # one's id is the other's name
        (Selection(0.6, ("box", "can")), [True, False, False]),
    ],
)
def test_detections_are_chosen_by_score_and_category(selection: Selection, expected: list[bool]) -> None:
    assert selection.marks(SCORES, CATEGORY_IDS, NAMES).tolist() == expected


def test_an_unknown_category_is_told_with_what_there_is() -> None:
    Selection(categories=("box", "9")).check_categories(NAMES)
    with pytest.raises(InputError) as caught:
        Selection(categories=("box", "boxs")).check_categories(NAMES)
    line = "--categories must be names or ids of 2 can, 5 box, 9 2, got boxs; did you mean box?"
    assert str(caught.value) == line
    with pytest.raises(InputError, match="must be names or ids of none, got boks$"):
        Selection(categories=("boks",)).check_categories({})


def test_certainty_is_the_mean_of_the_selected_scores() -> None:
    is_selected = np.array([True, True, False])
    means = mean_scores(SCORES, is_selected, np.array([2, 0, 1]))
    np.testing.assert_allclose(means, [0.7, np.inf, np.inf])
    assert mean_scores(SCORES[:0], is_selected[:0], np.array([0, 0])).tolist() == [np.inf, np.inf]


def test_the_least_certain_come_first_and_empty_images_last() -> None:
    certainties = np.array([0.9, np.inf, 0.3, 0.5, 0.3])
    assert draw_sample(certainties, 3, "least-certain", 0).tolist() == [2, 4, 3]
    assert draw_sample(certainties, 99, "least-certain", 0).tolist() == [2, 4, 3, 0, 1]


def test_a_random_sample_is_the_same_for_the_same_seed() -> None:
    certainties = np.zeros(1000)
    first, again, other = (draw_sample(certainties, 10, "random", seed).tolist() for seed in (1, 1, 2))
    assert first == again != other
    assert len(set(first)) == 10
    assert first != sorted(first)


def test_rows_are_numbered_in_the_order_of_review() -> None:
    is_ok = np.array([True, False, True, True])
    assert number_rows(is_ok, None).tolist() == [0, -1, 1, 2]
    assert number_rows(is_ok, [2, 0]).tolist() == [1, -1, -1, 0]
