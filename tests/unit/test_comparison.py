"""Two tables compared: what is the same object, what is lost and gained, and what is left out, to the number."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from maskrcnn.coco import rle
from maskrcnn.coco.packed import SizedSegmentations
from maskrcnn.comparison.gate import Gate
from maskrcnn.comparison.job import Comparison, ComparisonConfig, compare_tables
from maskrcnn.comparison.matching import MIN_IOU, Instances, match
from maskrcnn.comparison.page import check_output, describe_comparison, to_json, write_comparison
from maskrcnn.errors import InputError, OutputError
from maskrcnn.labelling.results import ImageResult
from tests.labelled_parts import FAILED, HEIGHT, WIDTH, Found, labelled, write_part

CAN, BOX, BAG = 2, 5, 9


def square(x: int, y: int, side: int = 10) -> np.ndarray[Any, np.dtype[np.uint8]]:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[y : y + side, x : x + side] = 1
    return mask


def compare(tmp_path: Path, a: dict[str, ImageResult], b: dict[str, ImageResult], **options: Any) -> Comparison:
    uris = [write_part(tmp_path / name, results) for name, results in (("a", a), ("b", b))]
    return compare_tables(ComparisonConfig(*uris, **options))


def change_column(uri: str, name: str, change: Callable[[list[Any]], list[Any]]) -> None:
    """Change a column of a table's only part."""
    [part] = Path(uri).glob("table/*.parquet")
    rows = pq.read_table(part)
    field = rows.schema.field(name)
    column = pa.array(change(rows[name].to_pylist()), field.type)
    pq.write_table(rows.set_column(rows.column_names.index(name), field, column), part)


def instances(*found: Found) -> Instances:
    rles = [rle.from_mask(mask) for _, _, mask in found]
    return Instances(
        of_image=np.zeros(len(found), np.int64),
        categories=np.array([category for category, _, _ in found], np.int64),
        scores=np.array([score for _, score, _ in found]),
        boxes=np.array([rle.to_bbox(one) for one in rles]).reshape(-1, 4),
        masks=SizedSegmentations.from_rles(rles),
    )


def test_the_pair_that_overlaps_most_is_matched_first_whatever_the_scores() -> None:
    a = instances((0, 0.9, square(0, 0)), (0, 0.5, square(2, 0)))
    b = instances((0, 0.6, square(2, 0)))
    matches = match(a, b, np.ones(1, np.bool_))
    assert matches.b_of_a.tolist() == [-1, 0]
    assert matches.ious.tolist() == [0, 1]
    assert matches.is_gained.tolist() == [False]


def test_matching_stays_within_category_and_above_the_least_overlap() -> None:
    a = instances((0, 0.9, square(0, 0)), (1, 0.9, square(20, 0)), (1, 0.9, square(40, 0)))
    b = instances((1, 0.9, square(0, 0)), (1, 0.9, square(26, 0)), (1, 0.9, square(43, 0)))
    for has_masks in (True, False):
        matches = match(a, b, np.array([has_masks]))
        assert matches.b_of_a.tolist() == [-1, -1, 2]
        assert matches.ious[2] == pytest.approx(7 / 13)
        assert matches.ious[2] >= MIN_IOU
        assert matches.is_gained.tolist() == [True, True, False]


def test_masks_tell_apart_what_boxes_do_not() -> None:
    ring = square(0, 0, 20) - np.pad(square(5, 5, 10), 0)
    a, b = instances((0, 0.9, ring)), instances((0, 0.9, square(0, 0, 20) - ring))
    assert match(a, b, np.array([True])).b_of_a.tolist() == [-1]
    assert match(a, instances((0, 0.9, square(0, 0, 20))), np.array([False])).ious.tolist() == [1]


def test_every_number_of_a_small_comparison(tmp_path: Path) -> None:
    a = {
        "1.jpg": labelled([(CAN, 0.9, square(0, 0)), (CAN, 0.8, square(20, 0)), (BOX, 0.7, square(40, 0))]),
        "2.jpg": labelled([(BOX, 0.5, square(0, 0))]),
        "3.jpg": labelled([]),
        "4.jpg": labelled([(CAN, 0.6, square(0, 0))]),
        "5.jpg": FAILED,
        "6.jpg": FAILED,
        "only-a.jpg": labelled([]),
    }
    b = {
        "3.jpg": labelled([(BAG, 0.4, square(0, 0))]),
        "2.jpg": labelled([(BOX, 0.6, square(0, 0))]),
        "1.jpg": labelled([(CAN, 0.7, square(0, 2)), (BOX, 0.7, square(40, 0))]),
        "4.jpg": FAILED,
        "5.jpg": labelled([]),
        "6.jpg": FAILED,
        "only-b.jpg": labelled([]),
        "also-only-b.jpg": labelled([]),
    }
    found = compare(tmp_path, a, b)
    images = found.images
    assert (images.compared, images.by_masks, images.only_a, images.only_b) == (3, 3, 1, 2)
    assert (images.new_errors, images.mended, images.failed_in_both, images.other_etag) == (1, 1, 1, 0)
    assert images.new_errors_share == pytest.approx(1 / 4)
    assert [(one.image_uri[-5:], one.error_kind) for one in found.new_errors] == [("4.jpg", "corrupt")]

    overall = found.overall
    assert (overall.num_images, overall.num_a, overall.num_b, overall.num_matched) == (3, 4, 4, 3)
    assert (overall.num_lost, overall.num_gained, overall.lost_share, overall.gained_share) == (1, 1, 0.25, 0.25)
    assert overall.mean_iou == pytest.approx((80 / 120 + 1 + 1) / 3)
    assert overall.agreement == pytest.approx(6 / 8)
    assert overall.count_change == 0
    assert overall.mean_score_shift == pytest.approx((-0.2 + 0 + 0.1) / 3)
    assert list(found.by_category) == ["bag", "box", "can"]
    can, bag = found.by_category["can"], found.by_category["bag"]
    assert (can.num_images, can.num_a, can.num_b, can.count_change) == (1, 2, 1, -0.5)
    assert (bag.num_a, bag.lost_share, bag.count_change, bag.mean_iou) == (0, None, None, None)
    assert (bag.gained_share, bag.agreement) == (1, 0)

    assert [one.image_uri[-5:] for one in found.worst] == ["1.jpg", "3.jpg"]
    assert [one.cost for one in found.worst] == pytest.approx([1 + 1 / 3, 1])
    assert (found.worst[0].num_lost, found.worst[0].num_gained) == (1, 0)
    said = to_json(found)
    assert said["overall"]["num_lost"] == 1
    json.dumps(said, allow_nan=False)
    assert "3 images compared by masks, at a score threshold of 0.3; left out: 1 only in A" in describe_comparison(
        found
    )


def test_groups_come_from_columns_and_from_the_uri_the_least_agreement_first(tmp_path: Path) -> None:
    names = ["north/1.jpg", "south/1.jpg", "south/2.jpg", "else.jpg"]
    full = labelled([(CAN, 0.9, square(0, 0))])
    cameras = {"camera": [1, 1, 2, 2]}
    a = write_part(tmp_path / "a", dict.fromkeys(names, full), columns=cameras)
    b = write_part(tmp_path / "b", dict.fromkeys(names, full) | {"south/2.jpg": labelled([])})
    found = compare_tables(ComparisonConfig(a, b, by=("camera", r"/photos/(?P<store>[^/]+)/")))
    assert found.group_names == ("camera", "store")
    assert [(group, one.num_a, one.num_b) for group, one in found.by_group.items()] == [
        (("2", "south"), 1, 0),
        (("1", "north"), 1, 1),
        (("1", "south"), 1, 1),
        (("2", None), 1, 1),
    ]
    assert "camera=2, store=none" in describe_comparison(found)


def test_a_group_that_failed_in_b_closes_the_gate_though_nothing_of_it_is_compared(tmp_path: Path) -> None:
    full = labelled([(CAN, 0.9, square(0, 0))])
    a, b = {"north/1.jpg": full, "south/1.jpg": full}, {"north/1.jpg": full, "south/1.jpg": FAILED}
    gate = Gate(of_groups={"max_lost_share": 0.5})
    found = compare(tmp_path, a, b, by=(r"/photos/(?P<store>[^/]+)/",), gate=gate)
    assert [str(one) for one in found.exceeded or []] == [
        "all images: new_errors_share is 0.5, above max_new_errors_share = 0.01",
        "group store=south: compared_share is 0, below min_compared_share = 0.5",
        "group store=south: nothing to judge by max_lost_share = 0.5",
    ]
    assert [(group, one.num_images) for group, one in found.by_group.items()] == [(("south",), 0), (("north",), 1)]
    with pytest.raises(InputError, match="--gate has limits for groups, and --by is not given; give --by, or drop"):
        compare_tables(ComparisonConfig("a", "b", gate=gate))


def test_another_version_of_an_image_is_not_compared(tmp_path: Path) -> None:
    a = write_part(tmp_path / "a", {"1.jpg": labelled([]), "2.jpg": labelled([])})
    changed = {"etag": ["1", "2"]}
    b = write_part(tmp_path / "b", {"1.jpg": labelled([]), "2.jpg": labelled([])}, columns=changed)
    images = compare_tables(ComparisonConfig(a, b)).images
    assert (images.compared, images.other_etag, images.only_a) == (1, 1, 0)
    assert images.left_out_share == 0.5


def test_another_size_is_not_compared(tmp_path: Path) -> None:
    turned = labelled([(CAN, 0.9, square(0, 0).T)])
    images = compare(tmp_path, {"1.jpg": labelled([(CAN, 0.9, square(0, 0))])}, {"1.jpg": turned}).images
    assert (images.compared, images.other_size, images.left_out_share) == (0, 1, 1)


def test_a_table_without_masks_is_compared_by_boxes(tmp_path: Path) -> None:
    found = [(CAN, 0.9, square(0, 0)), (BOX, 0.9, square(20, 0))]
    a = write_part(tmp_path / "a", {"1.jpg": labelled(found)})
    b = write_part(tmp_path / "b", {"1.jpg": labelled(found[1:], with_masks=False)}, with_masks=False)
    for uris in ((a, b), (b, a)):
        comparison = compare_tables(ComparisonConfig(*uris))
        assert comparison.images.by_masks == 0
        assert (comparison.overall.num_matched, comparison.overall.mean_iou) == (1, 1)
        assert "1 images compared by boxes" in describe_comparison(comparison)
        write_comparison(comparison, str(tmp_path / "page"))


def test_both_tables_are_taken_at_one_threshold(tmp_path: Path) -> None:
    results = {"1.jpg": labelled([(CAN, 0.9, square(0, 0)), (CAN, 0.6, square(20, 0)), (CAN, 0.35, square(40, 0))])}
    assert compare(tmp_path, results, results).overall.num_matched == 3
    assert compare(tmp_path, results, results, score_threshold=0.6).overall.num_a == 2
    with pytest.raises(InputError, match=r"--score-threshold must be 0.3 or more, .* labelled with, got 0.2"):
        compare(tmp_path, results, results, score_threshold=0.2)
    assert compare(tmp_path, results, results, score_threshold=0.3).overall.num_a == 3


def test_categories_are_told_by_their_names_whatever_their_ids(tmp_path: Path) -> None:
    uri = write_part(tmp_path / "a", {"1.jpg": labelled([(CAN, 0.9, square(0, 0))])})
    other = write_part(tmp_path / "b", {"1.jpg": labelled([(CAN, 0.9, square(0, 0))])})
    renumber = {"category_id": 77}
    change_column(other, "instances", lambda rows: [[one | renumber for one in found] for found in rows])
    assert compare_tables(ComparisonConfig(uri, other)).overall.num_matched == 1


def test_a_broken_mask_is_told_and_never_reaches_pycocotools(tmp_path: Path) -> None:
    a = write_part(tmp_path / "a", {"1.jpg": labelled([(CAN, 0.9, square(0, 0))])})
    b = write_part(tmp_path / "b", {"1.jpg": labelled([])})
    change_column(a, "masks", lambda rows: [[b"~~~~~~~"] for _ in rows])
    with pytest.raises(InputError, match=r"s3://shop/photos/1.jpg segmentation"):
        compare_tables(ComparisonConfig(a, b))


def test_the_output_is_a_new_folder_or_an_earlier_comparison_of_which_nothing_is_left(tmp_path: Path) -> None:
    found = compare(tmp_path, {"1.jpg": labelled([(CAN, 0.9, square(0, 0))])}, {"1.jpg": labelled([])})
    page = tmp_path / "page"
    write_comparison(found, str(page))
    assert (page / "pictures" / "000-a.jpg").exists()
    write_comparison(replace(found, worst=[]), str(page))
    assert not list(page.glob("pictures/*"))
    assert (page / "index.html").exists()
    for taken in (found.config.a_uri, str(tmp_path)):
        with pytest.raises(OutputError, match="--output must be a new folder, or one that maskrcnn compare wrote"):
            check_output(taken)
        with pytest.raises(OutputError):
            write_comparison(found, taken)


def test_images_elsewhere_are_found_by_the_end_of_their_names(tmp_path: Path) -> None:
    results = {"north/1.jpg": labelled([(CAN, 0.9, square(0, 0))]), "gone/1.jpg": labelled([(BOX, 0.9, square(0, 0))])}
    found = compare(tmp_path, results, dict.fromkeys(results, labelled([])))
    moved = tmp_path / "moved" / "of-today" / "north"
    moved.mkdir(parents=True)
    Image.new("RGB", (WIDTH, HEIGHT)).save(moved / "1.jpg")
    write_comparison(found, str(tmp_path / "page"), str(moved.parent))
    assert (tmp_path / "page" / "index.html").read_text().count("cannot be read") == 1


def test_tables_without_a_common_image_give_a_page_that_says_so(tmp_path: Path) -> None:
    found = compare(tmp_path, {"1.jpg": labelled([])}, {"2.jpg": labelled([])})
    assert (found.images.compared, found.overall.agreement) == (0, None)
    write_comparison(found, str(tmp_path / "page"))
    assert "images compared" in (tmp_path / "page" / "index.html").read_text()
