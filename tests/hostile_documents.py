"""COCO documents as an attacker, a broken exporter or a bad disk would write them; the n-th is always the same."""

from __future__ import annotations

import copy
import json
import math
import random
from collections.abc import Sequence
from typing import Any

from maskrcnn.coco import rle
from tests.coco_documents import good_document, square, triangle

NUMBERS = [
    0, -1, 1, 7, 5, 12, 0.5, -0.0, 1e-300, 1e300, -1e308, 1e18, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 2**64,
    10**400, math.nan, math.inf, -math.inf, True, False,
]  # fmt: skip
TEXTS = [
    "",
    " ",
    "0",
    "7",
    "12",
    "1e3",
    "NaN",
    "a.png",
    "../a.png",
    "/etc/passwd",
    "s3://b/a",
    "\0",
    "ä\ud800",
    "x" * 5000,
]
COUNTS = ["", "0", "N", "`", "Pp", "o" * 40, "PPYo0", "Ü", "\0", "oooooo0", "nnnnnn", "_" * 7, "1" * 2000]


class Hostile:
    """Makes documents of sound ones.

    Args:
        sound: documents to spoil, parsed.
    """

    def __init__(self, sound: Sequence[dict[str, Any]] = ()) -> None:
        self._sound = [good_document(), *sound]

    def document(self, number: int) -> bytes:
        """Give the file of a document that is spoilt in one to four places."""
        rng = random.Random(number)
        document = copy.deepcopy(rng.choice(self._sound))
        spoilers = [_spoil_any, _spoil_segmentation, _spoil_segmentation, _spoil_ids, _spoil_list]
        for _ in range(rng.choice([1, 1, 2, 4])):
            rng.choice(spoilers)(document, rng)
        body = json.dumps(document, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
        return _spoil_bytes(body, rng) if rng.random() < 0.1 else body


def hostile_results(number: int) -> bytes:
    """Give a results file of the good document's objects, spoilt in one to three places."""
    rng = random.Random(number)
    rows: list[Any] = [
        {"image_id": row["image_id"], "category_id": row["category_id"], "score": rng.random()}
        | {name: row[name] for name in rng.choice([("bbox",), ("segmentation",), ("bbox", "segmentation")])}
        for row in good_document()["annotations"][:8]
    ]
    shape = [name for name in ("bbox", "segmentation") if name in rows[0]]
    rows = [
        {name: row.get(name, [0, 0, 5, 5]) for name in ("image_id", "category_id", "score", *shape)} for row in rows
    ]
    for _ in range(rng.choice([0, 1, 1, 3])):
        row = rng.choice(rows)
        match rng.randrange(4):
            case 0:
                row["segmentation"] = hostile_segmentation(rng)
            case 1:
                field = rng.choice(["image_id", "category_id", "score", "bbox"])
                row[field] = rng.choice(
                    [*NUMBERS, *TEXTS, None, [], [1, 2, 3], [0, 0, -1, math.nan], [0, 0, 1e300, 1e300]]
                )
            case 2 if row:
                row.pop(rng.choice(list(row)))
            case 3:
                rows[rng.randrange(len(rows))] = rng.choice([dict(row), _hostile_value(rng)])
                rows = [row if isinstance(row, dict) else {"image_id": row} for row in rows]
    body = json.dumps(rng.choice([rows, rows, rows, rows, {"a": rows}, rows[0]]), ensure_ascii=False)
    encoded = body.encode("utf-8", "surrogatepass")
    return _spoil_bytes(encoded, rng) if rng.random() < 0.1 else encoded


def hostile_segmentation(rng: random.Random, height: int = 40, width: int = 60) -> Any:
    """Give something in a segmentation's place."""
    return rng.choice([_hostile_polygons, _hostile_rle, _hostile_counts, _hostile_value])(rng, height, width)


def _hostile_value(rng: random.Random, height: int = 40, width: int = 60) -> Any:
    return rng.choice(
        [None, [], {}, [[]], [None], [[None]], [{}], "", _nested(rng.choice([3, 40, 400])), rng.choice(NUMBERS),
         rng.choice(TEXTS), [rng.choice(NUMBERS) for _ in range(rng.randrange(5))]]
    )  # fmt: skip


def _nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def _hostile_polygons(rng: random.Random, height: int, width: int) -> Any:
    polygons: list[Any] = [
        rng.choice([square, triangle])(rng.randrange(width), rng.randrange(height), rng.uniform(0, 30))
    ]
    polygon = polygons[0]
    match rng.randrange(8):
        case 0:
            polygon[rng.randrange(len(polygon))] = rng.choice([*NUMBERS, *TEXTS, None, [], {}])
        case 1:
            polygons = [[value * rng.choice([-1, 1e3, 1e7, 1e150]) for value in polygon]]
        case 2:
            polygons = [polygon[: rng.randrange(len(polygon))]]
        case 3:
            polygons = [[polygon[0], polygon[1]] * rng.randrange(6)]
        case 4:
            polygons = polygon
        case 5:
            polygons = [[polygon[place : place + 2] for place in range(0, len(polygon), 2)]]
        case 6:
            polygons = [[rng.uniform(-5, 70) for _ in range(2 * rng.randrange(3, 400))]]
        case 7:
            polygons.append(rng.choice([polygon, [], None, _hostile_value(rng)]))
    return polygons


def _hostile_rle(rng: random.Random, height: int, width: int) -> Any:
    size = rng.choice(
        [[height, width]] * 3 + [[width, height], [0, 0], [-1, 5], [2**20, 2**20], [1.5, 2], "ab", None, []]
    )
    mask = rle.from_polygons([square(rng.randrange(30), rng.randrange(20), 9)], height, width)
    text = rng.choice(
        [mask["counts"].decode(), rng.choice(COUNTS), "".join(chr(rng.randrange(40, 120)) for _ in range(9))]
    )
    place = rng.randrange(len(text) + 1)
    if rng.random() < 0.5:
        text = text[:place] + chr(rng.randrange(256)) + text[place + rng.randrange(3) :]
    return {"size": size, "counts": text, **({"extra": 1} if rng.random() < 0.1 else {})}


def _hostile_counts(rng: random.Random, height: int, width: int) -> Any:
    runs: list[Any] = [rng.randrange(200) for _ in range(rng.randrange(12))]
    if rng.random() < 0.5:
        runs.append(height * width - sum(runs))
    if runs and rng.random() < 0.5:
        runs[rng.randrange(len(runs))] = rng.choice([*NUMBERS, None, "3", [1], -7])
    return {"size": [height, width], "counts": runs}


def _spoil_segmentation(document: dict[str, Any], rng: random.Random) -> None:
    rows = document.get("annotations")
    if isinstance(rows, list) and rows and isinstance(row := rng.choice(rows), dict):
        row["segmentation"] = hostile_segmentation(rng)


def _spoil_ids(document: dict[str, Any], rng: random.Random) -> None:
    rows = document.get(rng.choice(["images", "annotations", "categories"]))
    if isinstance(rows, list) and rows and isinstance(row := rng.choice(rows), dict):
        field = rng.choice(["id", "image_id", "category_id", "width", "height", "file_name", "name", "bbox", "area"])
        row[field] = rng.choice([*NUMBERS, *TEXTS, None, [], [1, 2, 3], [0, 0, -1, math.nan], {"a": 1}])


def _spoil_list(document: dict[str, Any], rng: random.Random) -> None:
    name = rng.choice(["images", "annotations", "categories"])
    rows = document.get(name)
    match rng.randrange(5):
        case 0:
            document.pop(name, None)
        case 1:
            document[name] = _hostile_value(rng)
        case 2 if isinstance(rows, list) and rows:
            rows.append(copy.deepcopy(rng.choice(rows)))
        case 3 if isinstance(rows, list):
            rows.insert(rng.randrange(len(rows) + 1), _hostile_value(rng))
        case 4 if isinstance(rows, list) and rows:
            rows.pop(rng.randrange(len(rows)))


def _spoil_any(document: dict[str, Any], rng: random.Random) -> None:
    """Replace or take away something, anywhere."""
    place: Any = document
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return
        key = rng.choice(keys)
        if isinstance(place[key], dict | list) and rng.random() < 0.8:
            place = place[key]
            continue
        if isinstance(place, dict) and rng.random() < 0.3:
            del place[key]
        else:
            place[key] = _hostile_value(rng)
        return


def _spoil_bytes(body: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(body))
    match rng.randrange(4):
        case 0:
            return body[:place]
        case 1:
            return body[:place] + bytes([rng.randrange(256)]) + body[place + 1 :]
        case 2:
            return body[:place] + body[rng.randrange(len(body)) :]
    return (
        body[:place]
        + rng.choice([b"[" * 100_000, b"\0", b'"', b"\xef\xbb\xbf", b",", b"-", b"1" * 5000])
        + body[place:]
    )
