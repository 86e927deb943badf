"""Paths and URIs from outside that must not be opened: all refused, and not a socket or file was touched to know it."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from maskrcnn import storage
from maskrcnn.coco.file_names import safe_join
from maskrcnn.errors import InputError
from maskrcnn.labelling.admission import check_rows
from maskrcnn.labelling.inventory import read_inventory
from maskrcnn.labelling.listing import list_manifest
from tests.faults.figures import record
from tests.faults.scale import scale
from tests.unit.test_outside import REFUSED, REMOTE
from tests.unit.test_safe_join import BAD_NAMES

NUM_SPELLINGS = scale(2_000, 200_000)
INVENTORY = {"sourceBucket": "photos", "destinationBucket": "arn:aws:s3:::lists", "fileFormat": "CSV",
             "fileSchema": "Bucket, Key, Size, ETag, LastModifiedDate", "files": [{"key": "a.csv"}]}  # fmt: skip
BAD_INVENTORIES: list[dict[str, Any]] = [
    {"sourceBucket": "photos/../x"}, {"sourceBucket": "a@169.254.169.254"}, {"destinationBucket": "arn:aws:s3:::../x"},
    {"files": [{"key": "../../etc/shadow"}]}, {"files": [{"key": "/etc/shadow"}]}, {"files": [{"key": "file:///etc/x"}]},
    {"files": [{"key": "a\0b"}]}, {"destinationBucket": "", "files": [{"key": "%2e%2e/x"}]},
]  # fmt: skip


@pytest.fixture
def nothing_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        pytest.fail("something was opened")

    for name in ("socket", "create_connection", "getaddrinfo", "gethostbyname"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setattr(storage, "_store", refuse)


def spelt(rng: random.Random) -> str:
    """Spell the URL of an address that gives a machine's credentials."""
    number = rng.choice([0xA9FEA9FE, 0xA9FEAA02, rng.randint(0xA9FE0000, 0xA9FEFFFF)])
    if rng.random() < 0.3:
        prefix = rng.choice([0xFFFF << 32, 0x64FF9B << 96])
        host = (
            f"[::ffff:{number >> 16:x}:{number & 0xFFFF:x}]"
            if prefix == 0xFFFF << 32
            else f"[64:ff9b::{number >> 16:x}:{number & 0xFFFF:x}]"
        )
    else:
        ways: list[Callable[[int], str]] = [str, hex, lambda n: f"0{n:o}", lambda n: f"0X{n:08X}"]
        num_parts = rng.randint(1, 4)
        parts = [number >> (24 - 8 * place) & 0xFF for place in range(num_parts - 1)]
        parts.append(number & ((1 << (8 * (5 - num_parts))) - 1))
        host = ".".join(rng.choice(ways)(part) for part in parts)
        if rng.random() < 0.2:
            host = "".join(f"%{ord(letter):02x}" if rng.random() < 0.5 else letter for letter in host)
    user, port = rng.choice(["", "", "x@"]), rng.choice(["", ":80", ":"])
    return f"{rng.choice(['http', 'https', 'HTTP'])}://{user}{host}{port}/latest/meta-data/"


@pytest.mark.usefixtures("nothing_is_opened")
def test_what_must_not_be_opened_is_refused(tmp_path: Path) -> None:
    rng = random.Random(7)
    uris = [uri for some in REFUSED.values() for uri in some] + [spelt(rng) for _ in range(NUM_SPELLINGS)]
    for uri in uris:
        with pytest.raises(InputError, match="must "):
            check_rows(pa.table({"image_uri": [uri]}), REMOTE)
    for changes in BAD_INVENTORIES:
        with pytest.raises(InputError, match="must "):
            list(read_inventory(INVENTORY | changes, "s3://lists/2026/manifest.json"))
    (tmp_path / "images").mkdir()
    os.symlink("/etc", tmp_path / "images" / "link")
    os.symlink("/etc/hostname", tmp_path / "images" / "a.jpg")
    names = [*BAD_NAMES, "link/hostname", "a.jpg"]
    for name in names:
        with pytest.raises(InputError, match="must "):
            safe_join(str(tmp_path / "images"), name)
    record("paths", uris=len(uris), inventories=len(BAD_INVENTORIES), names=len(names), opened=0)


def test_a_manifest_with_such_a_row_is_refused_as_a_whole(tmp_path: Path) -> None:
    manifest = str(tmp_path / "manifest.parquet")
    for uri in (
        "http://169.254.169.254/latest/",
        "sftp://host/a.jpg",
        f"{tmp_path}/../a.jpg",
        "http://[::ffff:a9fe:a9fe]/",
    ):
        pq.write_table(pa.table({"uri": [str(tmp_path / "good.jpg"), uri]}), manifest)
        with pytest.raises(InputError, match="must ") as caught:
            list_manifest(manifest)
        assert caught.value.place == manifest
