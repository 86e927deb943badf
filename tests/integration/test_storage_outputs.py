"""An output of any size appears whole or not at all, and never in another's place, on every backend."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from maskrcnn import storage
from maskrcnn.errors import ExistsError, NotFoundError, UnavailableError
from maskrcnn.storage import PutAnswer, object_store, uploads
from tests.conftest import s3_client


@pytest.fixture(params=["local", "local without unnamed files", "s3", "s3 in parts", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    kind: str = request.param
    if kind == "memory":
        return f"memory://{uuid.uuid4().hex}"
    if kind.startswith("local"):
        if kind != "local":
            refuse_unnamed_files(monkeypatch)
        return str(tmp_path)
    if kind == "s3 in parts":
        monkeypatch.setattr(uploads, "SINGLE_PUT_BYTES", 1000)
        monkeypatch.setattr(uploads, "UPLOAD_PART_BYTES", 5 << 20)
    bucket: str = request.getfixturevalue("bucket")
    return bucket


def refuse_unnamed_files(monkeypatch: pytest.MonkeyPatch) -> None:
    real_open = os.open

    def open_named(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return real_open(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", open_named)


def write_and_then(uri: str, body: bytes, act: Callable[[], None]) -> None:
    with storage.open_output(uri) as file:
        file.write(body)
        act()


def interrupt() -> None:
    raise KeyboardInterrupt


def everything_in(root: str) -> list[str]:
    """List hidden files too, and what an upload that was not finished leaves."""
    if root.startswith("s3://"):
        name = root.removeprefix("s3://")
        uploads = s3_client().list_multipart_uploads(Bucket=name).get("Uploads", [])
        objects = s3_client().list_objects_v2(Bucket=name).get("Contents", [])
        return [entry["Key"] for entry in [*uploads, *objects]]
    if root.startswith("memory://"):
        return storage.list_uris(root)
    return [name for _, _, names in os.walk(root) for name in names]


def test_what_is_written_piece_by_piece_is_there_when_the_block_ends(root: str) -> None:
    uri = storage.join(root, "exports", "big.json")
    pieces = [os.urandom(1 << 20) for _ in range(12)]
    with storage.open_output(uri) as file:
        for piece in pieces:
            file.write(piece)
            assert not storage.exists(uri)
    assert storage.read_bytes(uri) == b"".join(pieces)
    assert len(everything_in(root)) == 1


def test_a_block_that_fails_leaves_nothing(root: str) -> None:
    uri = storage.join(root, "exports", "big.json")
    with pytest.raises(KeyboardInterrupt):
        write_and_then(uri, bytes(20 << 20), interrupt)
    assert everything_in(root) == []


def test_what_is_there_is_refused_before_anything_is_written(root: str) -> None:
    uri = storage.join(root, "out.json")
    storage.put(uri, b"precious")
    with pytest.raises(ExistsError, match="out.json: something is there already"), storage.open_output(uri):
        pytest.fail("the block was entered")
    assert storage.read_bytes(uri) == b"precious"


def test_what_came_meanwhile_is_not_replaced(root: str) -> None:
    uri = storage.join(root, "out.json")
    with pytest.raises(ExistsError):
        write_and_then(uri, bytes(2000), lambda: storage.put(uri, b"precious"))
    assert storage.read_bytes(uri) == b"precious"
    assert len(everything_in(root)) == 1


def test_a_link_that_leads_nowhere_is_something_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "out.json").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ExistsError), storage.open_output(str(tmp_path / "out.json")):
        pytest.fail("the block was entered")


def test_a_file_in_a_folders_place_is_named_for_outputs_too(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"in the way")
    with pytest.raises(NotFoundError, match="a/b/c: "), storage.open_output(str(tmp_path / "a" / "b" / "c")):
        pytest.fail("the block was entered")


def test_a_missing_bucket_is_named_before_the_work(s3_endpoint: str) -> None:
    with pytest.raises(NotFoundError, match="no-such-bucket"), storage.open_output("s3://no-such-bucket/x"):
        pytest.fail("the block was entered")


@pytest.mark.parametrize("answer", [PutAnswer.EXISTS, PutAnswer.UNKNOWN])
def test_a_put_whose_answer_got_lost_is_resolved_by_reading_back(
    bucket: str, monkeypatch: pytest.MonkeyPatch, answer: PutAnswer
) -> None:
    real_put = object_store.ObjectStore.put_if_absent

    def put_and_forget(self: object_store.ObjectStore, uri: str, body: bytes) -> PutAnswer:
        if not uri.endswith("lost"):
            real_put(self, uri, body)
        return answer

    monkeypatch.setattr(object_store.ObjectStore, "put_if_absent", put_and_forget)
    write_and_then(f"{bucket}/x", b"ours", lambda: None)
    assert storage.read_bytes(f"{bucket}/x") == b"ours"
    with pytest.raises(UnavailableError, match="lost: the answer to the put got lost"):
        write_and_then(f"{bucket}/lost", b"ours", lambda: None)
