"""COCO documents read through a window: wherever it ends, what `json.loads` of the whole file gives, or says."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskrcnn import storage
from maskrcnn.coco.annotations import load_coco, parse_coco
from maskrcnn.coco.document import members_of, stream_members
from maskrcnn.errors import AnnotationError, StorageError

IMAGE = {"id": 1, "file_name": 'ä€😀"\\\n\u2028.jpg', "height": 40, "width": 60}
ANNOTATION = {
    "id": 5,
    "image_id": 1,
    "category_id": 3,
    "bbox": [1.5, 2.25, 3e1, -4.0e-1],
    "segmentation": [[0, 0, 9.25, 0, 9, 9]],
}
CATEGORY = {"id": 3, "name": "tin"}
LISTS = {"images": [IMAGE], "annotations": [ANNOTATION], "categories": [CATEGORY]}


def read(body: bytes, window_bytes: int) -> dict[str, Any]:
    """Read a document through a window, and put it together again."""
    found: dict[str, Any] = {}
    for name, batches in stream_members(io.BytesIO(body), "x.json", window_bytes):
        taken = list(batches)
        found[name] = [row for batch in taken for row in batch] if isinstance(taken[0], list) else taken[0]
    return found


def words_of_json(body: bytes) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        json.loads(body)
    return f"file must be JSON: {caught.value}, in x.json"


@pytest.mark.parametrize("window_bytes", [1, 2, 3, 5, 17, 64, 1000])
@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("ensure_ascii", [False, True])
def test_a_window_may_end_anywhere(window_bytes: int, indent: int | None, ensure_ascii: bool) -> None:
    document = {"info": {"a": [1, {"b": None}]}, "n": -12.5e-3, "t": True, "empty": [], "none": {}, **LISTS}
    body = json.dumps(document, indent=indent, ensure_ascii=ensure_ascii).encode()
    assert read(body, window_bytes) == document


@pytest.mark.parametrize("text", ["\ud800", "\ud83d\ude00", "a\udc00b"])
@pytest.mark.parametrize("window_bytes", [1, 2, 3, 4, 5, 6, 7])
def test_surrogates_are_read_as_json_reads_them(text: str, window_bytes: int) -> None:
    for body in (json.dumps({"a": text}).encode(), f'{{"a": "{text}"}}'.encode("utf-8", "surrogatepass")):
        assert read(body, window_bytes) == json.loads(body)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
@pytest.mark.parametrize("window_bytes", [1, 5, 1000])
def test_every_encoding_that_json_detects_is_read(encoding: str, window_bytes: int) -> None:
    assert read(json.dumps(LISTS, ensure_ascii=False).encode(encoding), window_bytes) == LISTS


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1E400", "-0", "-1.5e-10", "1" * 100])
@pytest.mark.parametrize("window_bytes", [1, 4, 9])
def test_numbers_that_a_window_cuts_are_whole(number: str, window_bytes: int) -> None:
    body = f'{{"a": {number}, "b": [{number},{number}], "c": {number}}}'.encode()
    assert repr(read(body, window_bytes)) == repr(json.loads(body))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" \n",
        b"{",
        b'{"images"',
        b'{"images":',
        b'{"images": [',
        b'{"images": [1',
        b'{"images": [1,',
        b'{"images": [1,]}',
        b'{"images": [,1]}',
        b'{"images": [1 2]}',
        b'{"images":\n[{"id": 1,\n  "id" 2}]}',
        b'{"images": [{"id": "a\nb"}]}',
        b'{"images": ["\\x"]}',
        b'{"images": ["\\ud83d\\u12"]}',
        b'{"images": [1]',
        b'{"images": [1],}',
        b'{"images" 1}',
        b"{1: 2}",
        b"{'images': 1}",
        b'{"images": tru}',
        b'{"images": [-]}',
        b'{"a": 1}\n{"a": 2}',
        b'{"a": 1}]',
        b"[1, 2",
        b"[1] 2",
        b"nope",
        b'"abc',
        b"\n\n\n{\n}\n  x",
    ],
)
@pytest.mark.parametrize("window_bytes", [1, 7, 1000])
def test_what_is_no_json_is_refused_in_the_words_of_json(body: bytes, window_bytes: int) -> None:
    with pytest.raises(AnnotationError) as caught:
        read(body, window_bytes)
    assert str(caught.value) == words_of_json(body)


@pytest.mark.parametrize("window_bytes", [1, 7, 1000])
def test_a_file_cut_off_anywhere_is_refused_in_the_words_of_json(window_bytes: int) -> None:
    body = json.dumps(LISTS, indent=1).encode()
    for length in range(len(body)):
        with pytest.raises(AnnotationError) as caught:
            read(body[:length], window_bytes)
        assert str(caught.value) == words_of_json(body[:length])


@pytest.mark.parametrize("window_bytes", [1, 1000])
def test_bytes_outside_the_encoding_are_named(window_bytes: int) -> None:
    with pytest.raises(AnnotationError, match="file must be JSON: its byte 9 is not utf-8: invalid start byte, in x"):
        read(b'{"\xc3\xa4": "a\xff"}', window_bytes)
    with pytest.raises(AnnotationError, match="file must be JSON: its byte 2 is not utf-8: unexpected end of data"):
        read(b'{"\xc3', window_bytes)


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"images": [', b'{"images": ' + b"[" * 9])
def test_what_is_nested_too_deeply_is_refused(opening: bytes) -> None:
    with pytest.raises(AnnotationError, match="file must be JSON: maximum recursion depth exceeded"):
        read(opening * 30_000, 1000)


@pytest.mark.parametrize(
    ("body", "kind"), [(b"3", "int"), (b"null", "NoneType"), (b'"a"', "str"), (b"[1, [2]]", "list")]
)
def test_what_is_no_object_is_refused_once_it_is_json(body: bytes, kind: str) -> None:
    for document in (stream_members(io.BytesIO(body), "x.json", 2), members_of(json.loads(body), "x.json")):
        with pytest.raises(AnnotationError, match=f"annotations file must be a .*, got (a )?{kind}, in x.json"):
            list(document)


def test_elements_that_nobody_takes_are_passed_over() -> None:
    members = stream_members(io.BytesIO(json.dumps(LISTS).encode()), "x.json", 3)
    assert [name for name, _ in members] == list(LISTS)


def test_batches_are_as_large_as_the_window() -> None:
    body = json.dumps({"images": list(range(1000, 2000))}).encode()  # 6 characters each, but for the last one
    [(_, batches)] = [(name, list(batches)) for name, batches in stream_members(io.BytesIO(body), "x.json", 600)]
    assert [len(batch) for batch in batches] == [101, *[100] * 8, 99]


@pytest.mark.parametrize("names", [("annotations", "categories", "images"), ("categories", "annotations", "images")])
def test_the_lists_may_come_in_any_order(names: tuple[str, ...]) -> None:
    dataset = parse_coco(json.dumps({name: LISTS[name] for name in names}).encode(), "x.json")
    assert dataset.size_of(0) == (40, 60)
    assert dataset.segmentation(0) == ANNOTATION["segmentation"]


@pytest.mark.parametrize("first", ["[3]", "null", '[{"id": 1}]', "[]", '[{"id": 9, "name": "x", "image_id": 77}]'])
def test_of_a_list_that_comes_twice_the_last_counts(first: str) -> None:
    for name in LISTS:
        body = f'{{"{name}": {first}, {json.dumps(LISTS)[1:]}'.encode()
        dataset = parse_coco(body, "x.json")
        assert dataset.annotation_ids.tolist() == [5]
        assert dataset.categories.ids == (3,)
        assert dataset.image_ids.tolist() == [1]
        with pytest.raises(AnnotationError, match=f"{name} must be a list, got NoneType"):
            parse_coco(json.dumps(LISTS).encode()[:-1] + f', "{name}": null}}'.encode(), "x.json")


def test_a_file_that_breaks_off_is_told_before_a_row_that_is_wrong() -> None:
    with pytest.raises(AnnotationError, match="file must be JSON: Expecting ',' delimiter: line 1 column 17"):
        parse_coco(b'{"images": [{}] ', "x.json")


def test_a_wrong_row_is_named_by_its_place_in_the_whole_list() -> None:
    rows = [{**CATEGORY, "id": number} for number in range(10_000)]
    rows[9_000]["id"] = "9"
    with pytest.raises(AnnotationError, match=r"categories\[9000\] id must be a whole number in .*, got '9'"):
        parse_coco({**LISTS, "categories": rows}, "x.json")
    with pytest.raises(AnnotationError, match=r"annotations\[9000\] must be an object, got int"):
        parse_coco({**LISTS, "annotations": [ANNOTATION] * 9000 + [3]}, "x.json")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        load_coco(str(tmp_path))


def test_a_disk_that_fails_while_it_is_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(storage, "open_input", lambda uri: Failing())
    with pytest.raises(StorageError, match="x.json: Input/output error"):
        load_coco("x.json")


def test_polygons_that_are_no_plain_lists_are_packed_all_the_same() -> None:
    parts = [np.array([0.0, 0, 9, 0, 9, 9]), (0, 0, 9, 0, 9, 9), [0, True, 9, 0, 9, 9], [True, 0, 9, 0, 9, 9]]
    dataset = parse_coco({**LISTS, "annotations": [{**ANNOTATION, "segmentation": parts}]}, "x.json")
    assert dataset.segmentation(0) == [list(map(float, part)) for part in parts]
    for part in ([True, False] * 3, [10**400, 0, 9, 0, 9, 9], [2**70, 0, 9, 0, 9, 9], [None] * 6):
        with pytest.raises(AnnotationError, match=r"annotation 5 \(image 1\) segmentation polygon 1 must"):
            parse_coco({**LISTS, "annotations": [{**ANNOTATION, "segmentation": [parts[2], part]}]}, "x.json")


@pytest.mark.parametrize("value", [2**63, -(2**63), 10**400])
def test_whole_numbers_beyond_64_bits_are_no_measures(value: int) -> None:
    with pytest.raises(AnnotationError, match=r"annotation 5 \(image 1\) area must be a number, got -?[19]"):
        parse_coco({**LISTS, "annotations": [{**ANNOTATION, "area": value}]}, "x.json")
    dataset = parse_coco({**LISTS, "annotations": [{**ANNOTATION, "area": float(2**63), "bbox": [1, 1, 2, 3]}]}, "x")
    assert dataset.areas.tolist() == [2.0**63]
    assert dataset.bboxes.tolist() == [[1, 1, 2, 3]]
