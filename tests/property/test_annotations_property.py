"""COCO files against their columns, and image names against their folder, over whatever hypothesis thinks of."""

from __future__ import annotations

import io
import json
import posixpath
from dataclasses import fields
from typing import Any
from urllib.parse import unquote

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from maskrcnn.coco.annotations import collect, parse_coco
from maskrcnn.coco.document import stream_members
from maskrcnn.coco.file_names import safe_join
from maskrcnn.errors import AnnotationError

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

ROOT = "/nowhere/images"
IDS = st.integers(-(2**63), 2**63 - 1)
CATEGORY_IDS = st.integers(-(2**31), 2**31 - 1)
COORDINATES = st.floats(-50, 150, allow_nan=False)
POLYGON = st.lists(st.tuples(COORDINATES, COORDINATES), min_size=3, max_size=6).map(
    lambda points: [number for point in points for number in point]
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=4)),
    max_leaves=10,
)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    image_ids = draw(st.lists(IDS, min_size=1, max_size=5, unique=True))
    category_ids = draw(st.lists(CATEGORY_IDS, min_size=1, max_size=4, unique=True))
    annotation_ids = draw(st.lists(IDS, max_size=12, unique=True))
    names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
    return {
        "images": [{"id": image_id, "file_name": draw(names), "height": 60, "width": 80} for image_id in image_ids],
        "categories": [{"id": category_id, "name": draw(names)} for category_id in category_ids],
        "annotations": [
            {
                "id": annotation_id,
                "image_id": draw(st.sampled_from(image_ids)),
                "category_id": draw(st.sampled_from(category_ids)),
                "segmentation": draw(st.lists(POLYGON, max_size=3)),
                "bbox": draw(st.lists(COORDINATES, min_size=4, max_size=4)),
                "iscrowd": draw(st.integers(0, 1)),
            }
            for annotation_id in annotation_ids
        ],
    }


@UNHURRIED
@given(documents())
def test_columns_give_back_the_file(document: dict[str, Any]) -> None:
    dataset = parse_coco(json.dumps(document).encode(), "train.json")
    assert dataset.image_ids.tolist() == [image["id"] for image in document["images"]]
    assert list(dataset.file_names) == [image["file_name"] for image in document["images"]]
    for image_index, image in enumerate(document["images"]):
        expected = [row for row in document["annotations"] if row["image_id"] == image["id"]]
        indices = dataset.annotations_of(image_index)
        assert dataset.annotation_ids[indices].tolist() == [row["id"] for row in expected]
        assert [dataset.segmentation(index) or [] for index in indices] == [row["segmentation"] for row in expected]
        assert [dataset.bboxes[index].tolist() for index in indices] == [row["bbox"] for row in expected]
        assert dataset.iscrowd[indices].tolist() == [bool(row["iscrowd"]) for row in expected]
        for row in expected:
            label = dataset.categories.label_of(row["category_id"])
            assert dataset.categories.category_id_of(label) == row["category_id"]


@UNHURRIED
@given(documents(), st.data())
def test_any_value_anywhere_is_read_or_refused_in_one_line(document: dict[str, Any], data: st.DataObject) -> None:
    rows = data.draw(st.sampled_from([rows for rows in document.values() if rows]))
    row = data.draw(st.sampled_from(rows))
    row[data.draw(st.sampled_from(sorted(row)))] = data.draw(JSON)
    try:
        dataset = parse_coco(json.dumps(document).encode(), "train.json")
    except AnnotationError as error:
        assert error.place == "train.json"  # noqa: PT017
        return
    for index in range(dataset.num_annotations):
        if dataset.has_segmentation(index):
            assert dataset.rle(index)["size"] == list(dataset.size_of(index))


@UNHURRIED
@given(JSON)
def test_any_json_is_read_or_refused(document: Any) -> None:
    try:
        parse_coco(json.dumps(document).encode(), "train.json")
    except AnnotationError:
        return
    raise AssertionError("no dataset is this small")


def assert_same(one: Any, other: Any) -> None:
    """Compare columns, NaN equal to itself, and what holds columns."""
    for field in fields(one):
        ours, theirs = getattr(one, field.name), getattr(other, field.name)
        if isinstance(ours, np.ndarray):
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)
        elif field.name in ("file_names", "encoded", "segmentations", "counts"):
            assert_same(ours, theirs)
        else:
            assert ours == theirs


SPACES = st.sampled_from([None, 0, 1, 3])
WINDOWS = st.integers(1, 400)


@UNHURRIED
@given(documents(), st.dictionaries(st.text(max_size=5), JSON, max_size=3), SPACES, st.booleans(), WINDOWS, st.data())
def test_a_file_of_any_layout_through_any_window_gives_the_columns_of_the_parsed_document(
    document: dict[str, Any],
    others: dict[str, Any],
    indent: int | None,
    ensure_ascii: bool,
    window_bytes: int,
    data: st.DataObject,
) -> None:
    rows = document["annotations"]
    if rows and data.draw(st.booleans()):
        data.draw(st.sampled_from(rows))["segmentation"] = {"size": [60, 80], "counts": [100, 200, 4500]}
    names = data.draw(st.permutations([*document, *others]))
    members = {name: document.get(name, others.get(name)) for name in names}
    body = json.dumps(members, indent=indent, ensure_ascii=ensure_ascii).encode("utf-8", "surrogatepass")
    streamed = collect(stream_members(io.BytesIO(body), "train.json", window_bytes), "train.json")
    assert_same(streamed, parse_coco(document, "train.json"))


@UNHURRIED
@given(JSON, SPACES, WINDOWS, st.data())
def test_a_file_that_is_broken_anywhere_is_refused_in_the_words_of_json(
    value: Any, indent: int | None, window_bytes: int, data: st.DataObject
) -> None:
    text = json.dumps({"images": [value, value], "other": value}, indent=indent)
    at = data.draw(st.integers(0, len(text) - 1))
    broken = text[:at] + data.draw(st.sampled_from(["", ",", "]", "}", '"', "\\", "1", "\n", "x"])) + text[at + 1 :]
    body = data.draw(st.sampled_from([broken, text[:at]])).encode()
    try:
        expected = json.loads(body)
    except ValueError as error:
        expected = str(error)
    try:
        found = {name: list(batches) for name, batches in stream_members(io.BytesIO(body), "x.json", window_bytes)}
    except AnnotationError as error:
        assert error.rule == f"must be JSON: {expected}"  # noqa: PT017
        return
    assert found.keys() == expected.keys()


SEGMENTS = st.sampled_from(["..", ".", "", "a", "..a", "%2e%2e", "%2E.", "\\", "C:", "file:", "\0", "~", "b.jpg"])


@UNHURRIED
@given(st.one_of(st.text(max_size=20), st.lists(SEGMENTS, max_size=6).map("/".join)))
def test_joined_names_stay_below_their_folder(file_name: str) -> None:
    for root in (ROOT, "s3://bucket/images"):
        try:
            uri = safe_join(root, file_name)
        except AnnotationError:
            continue
        assert uri.startswith(f"{root}/")
        assert "\0" not in uri
        for spelling in (uri, unquote(uri)):
            below = spelling.removeprefix(root)
            assert posixpath.normpath(ROOT + below).startswith(f"{ROOT}/")
