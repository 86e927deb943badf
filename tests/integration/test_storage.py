"""Every backend keeps the same promises: disk, a real S3 server over HTTP, and any other fsspec URL."""

from __future__ import annotations

import hashlib
import os
import pickle
import threading
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from maskrcnn import storage
from maskrcnn.errors import AccessError, IntegrityError, MaskrcnnError, NotFoundError
from maskrcnn.storage import PutAnswer
from tests.conftest import s3_client


@pytest.fixture(params=["local", "s3", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path)
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}"
    bucket: str = request.getfixturevalue("bucket")
    return bucket


def test_what_is_put_is_read_back(root: str) -> None:
    uri = storage.join(root, "a", "b.bin")
    storage.put(uri, b"one")
    storage.put(uri, b"two!")
    assert storage.read_bytes(uri) == b"two!"
    assert storage.exists(uri)
    assert not storage.exists(storage.join(root, "a", "c.bin"))


def test_put_if_absent_creates_once(root: str) -> None:
    uri = storage.join(root, "plans", "000001.parquet")
    assert storage.put_if_absent(uri, b"first") is PutAnswer.CREATED
    assert storage.put_if_absent(uri, b"second") is PutAnswer.EXISTS
    assert storage.read_bytes(uri) == b"first"


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_of_many_racing_puts_one_wins_and_its_bytes_are_whole(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    root = str(tmp_path) if kind == "local" else request.getfixturevalue("bucket")
    uri = storage.join(root, "race")
    bodies = [bytes([i]) * 100_000 for i in range(8)]
    answers: list[PutAnswer] = [PutAnswer.UNKNOWN] * len(bodies)

    def race(i: int) -> None:
        answers[i] = storage.put_if_absent(uri, bodies[i])

    threads = [threading.Thread(target=race, args=(i,)) for i in range(len(bodies))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers.count(PutAnswer.CREATED) == 1
    assert storage.read_bytes(uri) == bodies[answers.index(PutAnswer.CREATED)]


def test_what_is_deleted_is_gone_and_nothing_else(root: str) -> None:
    folder = storage.join(root, "run", "step-1")
    for name in ("a.bin", "b.bin", "a.bin2"):
        storage.put(storage.join(folder, name), b"x")
    storage.delete(storage.join(folder, "a.bin"))
    assert not storage.exists(storage.join(folder, "a.bin"))
    with pytest.raises(NotFoundError):
        storage.read_bytes(storage.join(folder, "a.bin"))
    assert sorted(storage.list_uris(folder)) == [storage.join(folder, name) for name in ("a.bin2", "b.bin")]


def test_what_is_not_there_can_be_deleted(root: str) -> None:
    storage.put(storage.join(root, "a"), b"x")
    for name in ("b", "a/b", "nowhere/b"):
        storage.delete(storage.join(root, name))
    assert storage.read_bytes(storage.join(root, "a")) == b"x"
    storage.delete(storage.join(root, "a"))
    storage.delete(storage.join(root, "a"))
    assert storage.list_uris(root) == []


def test_a_local_folder_goes_with_its_last_file(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "step-1"
    for name in ("a", "b"):
        storage.put(str(folder / name), b"x")
    storage.delete(str(folder / "a"))
    assert [path.name for path in folder.iterdir()] == ["b"]
    storage.delete(str(folder / "b"))
    assert not folder.exists()
    assert folder.parent.exists()


def test_what_may_not_be_deleted_is_an_access_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    storage.put(str(tmp_path / "a"), b"x")
    monkeypatch.setattr(os, "unlink", denied)
    with pytest.raises(AccessError, match="Permission denied"):
        storage.delete(str(tmp_path / "a"))


def test_listing_gives_every_object_with_its_version(root: str) -> None:
    names = ["a b.jpg", "ü%20.jpg", "x#y.jpg", "deep/er/p+q&.jpg", "[1]~.jpg"]
    for name in names:
        storage.put(storage.join(root, "in", name), name.encode())
    storage.put(storage.join(root, "in", ".hidden"), b"")
    storage.put(storage.join(root, "inside", "not-this.jpg"), b"")
    rows = [row for batch in storage.list_batches(storage.join(root, "in")) for row in batch.to_pylist()]
    by_uri = {row["uri"]: row for row in rows}
    assert len(by_uri) == len(rows) == len(names)
    for name in names:
        row = by_uri[storage.join(root, "in", name)]
        meta = storage.stat(row["uri"])
        assert (row["etag"], row["size"]) == (meta.etag, meta.size) == (row["etag"], len(name.encode()))
        assert storage.read_object(row["uri"], row["etag"], row["size"]) == name.encode()


def test_an_absent_folder_lists_nothing(root: str) -> None:
    assert storage.list_uris(storage.join(root, "nowhere")) == []


def test_a_version_that_changed_is_not_read(root: str) -> None:
    uri = storage.join(root, "x.jpg")
    storage.put(uri, b"old")
    old = storage.stat(uri)
    storage.put(uri, b"newer")
    with pytest.raises(NotFoundError, match="changed since it was listed"):
        storage.read_object(uri, old.etag, old.size)


def test_many_are_read_as_each_alone_would_be(root: str) -> None:
    for place in range(40):
        storage.put(storage.join(root, "in", f"{place:02d}.jpg"), bytes([place]) * 1000)
    listed = [storage.stat(uri) for uri in sorted(storage.list_uris(storage.join(root, "in")))]
    storage.put(listed[1].uri, b"changed since")
    storage.delete(listed[2].uri)
    outcomes = {answer.place: answer.outcome for answer in storage.read_objects(listed, max_in_flight=16)}
    assert sorted(outcomes) == list(range(40))
    for place, outcome in outcomes.items():
        if place in (1, 2):
            assert isinstance(outcome, NotFoundError)
        else:
            assert outcome == bytes([place]) * 1000
    assert "changed since it was listed" in str(outcomes[1])


def test_of_many_s3_bodies_each_is_checked(bucket: str) -> None:
    uris = [storage.join(bucket, name) for name in ("good.jpg", "short.jpg", "other.jpg")]
    for uri in uris:
        storage.put(uri, b"body")
    good, short, other = map(storage.stat, uris)
    listed = [good, replace(short, size=5), replace(other, etag="")]
    outcomes = {answer.place: answer.outcome for answer in storage.read_objects(listed)}
    assert (outcomes[0], outcomes[2]) == (b"body", b"body")
    assert isinstance(outcomes[1], IntegrityError)
    assert "4 bytes, the listing says 5" in str(outcomes[1])


def test_absent_objects_say_so_and_the_error_survives_pickle(root: str) -> None:
    for call in (storage.read_bytes, storage.stat, storage.open_input):
        with pytest.raises(NotFoundError) as caught:
            call(storage.join(root, "absent"))
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_open_input_reads_ranges(root: str) -> None:
    body = os.urandom(3_000_000)
    storage.put(storage.join(root, "big"), body)
    with storage.open_input(storage.join(root, "big")) as file:
        file.seek(-10, os.SEEK_END)
        assert file.read() == body[-10:]
        file.seek(1_234_567)
        assert file.read(1_000_000) == body[1_234_567:2_234_567]


def test_s3_bodies_are_checked_against_length_and_md5(bucket: str) -> None:
    uri = storage.join(bucket, "x.jpg")
    storage.put(uri, b"body")
    meta = storage.stat(uri)
    with pytest.raises(IntegrityError, match="4 bytes, the listing says 5"):
        storage.read_object(uri, meta.etag, 5)


def test_s3_md5_is_not_expected_of_multipart_or_kms_etags(bucket: str) -> None:
    from maskrcnn.storage.object_store import ObjectStore

    client = s3_client()
    name = bucket.removeprefix("s3://")
    client.put_object(Bucket=name, Key="plain.jpg", Body=b"plain")
    client.put_object(Bucket=name, Key="kms.jpg", Body=b"secret", ServerSideEncryption="aws:kms")
    store = ObjectStore(bucket)
    not_its_md5 = hashlib.md5(b"other").hexdigest()
    with pytest.raises(IntegrityError, match="MD5"):
        store._check_md5(f"{bucket}/plain.jpg", b"plain", not_its_md5)
    store._check_md5(f"{bucket}/plain.jpg", b"plain", not_its_md5 + "-2")
    store._check_md5(f"{bucket}/kms.jpg", b"secret", not_its_md5)


def test_s3_folder_markers_are_not_images(bucket: str) -> None:
    client = s3_client()
    name = bucket.removeprefix("s3://")
    for key in ("in/", "in/sub/", "in/sub/a.jpg", "in/empty.jpg", "in/last/", "in/z"):
        client.put_object(Bucket=name, Key=key, Body=b"x" if key.endswith("a.jpg") else b"")
    assert storage.list_uris(f"{bucket}/in") == [f"{bucket}/in/empty.jpg", f"{bucket}/in/sub/a.jpg", f"{bucket}/in/z"]
    assert storage.list_uris(f"{bucket}/in/last") == []
    assert storage.list_uris(f"{bucket}/in/sub") == [f"{bucket}/in/sub/a.jpg"]


def test_a_missing_bucket_is_named(s3_endpoint: str) -> None:
    with pytest.raises(NotFoundError, match="no-such-bucket"):
        storage.list_uris("s3://no-such-bucket/x")


def test_local_symlinks_are_followed_but_never_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.jpg").write_bytes(b"b")
    (tmp_path / "in" / "sub" / "a.jpg").write_bytes(b"a")
    (tmp_path / "in" / "sub" / "circle").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "dangling.jpg").symlink_to(tmp_path / "nowhere")
    found = storage.list_uris(str(tmp_path / "in"))
    assert found == [str(tmp_path / "in" / "linked" / "b.jpg"), str(tmp_path / "in" / "sub" / "a.jpg")]


def test_a_file_name_that_is_not_utf8_can_be_listed_and_read(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/caf\xe9.jpg", "wb") as file:
        file.write(b"latin")
    (batch,) = storage.list_batches(str(tmp_path))
    row = batch.to_pylist()[0]
    assert row["uri"].endswith("/caf%E9.jpg")
    assert storage.read_object(row["uri"], row["etag"], row["size"]) == b"latin"


def test_a_kill_between_write_and_link_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "link", killed)
    with pytest.raises(KeyboardInterrupt):
        storage.put_if_absent(str(tmp_path / "part"), b"x")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_an_access_or_storage_error() -> None:
    with pytest.raises(MaskrcnnError, match="/proc/nowhere"):
        storage.put_if_absent("/proc/nowhere/x", b"x")


@pytest.mark.parametrize("folder", ["", "./", "new/"])
def test_names_are_relative_to_where_the_command_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    monkeypatch.chdir(tmp_path)
    storage.put(f"{folder}a", b"one")
    storage.put(f"{folder}a", b"two")
    assert storage.put_if_absent(f"{folder}b", b"three") is PutAnswer.CREATED
    with storage.open_output(f"{folder}c") as file:
        file.write(b"four")
    assert [(tmp_path / folder / name).read_bytes() for name in "abc"] == [b"two", b"three", b"four"]
    assert storage.read_bytes(f"{folder}a") == b"two"


@pytest.mark.parametrize("put", [storage.put, storage.put_if_absent])
def test_a_file_in_a_folders_place_is_named(tmp_path: Path, put: Callable[[str, bytes], object]) -> None:
    (tmp_path / "a").write_bytes(b"in the way")
    for name in ("a/b", "a/b/c"):
        with pytest.raises(NotFoundError, match=f"{name}: (File exists|Not a directory)"):
            put(str(tmp_path / name), b"x")
    assert (tmp_path / "a").read_bytes() == b"in the way"


def test_a_permission_error_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "makedirs", denied)
    with pytest.raises(AccessError, match="Permission denied"):
        storage.put_if_absent(str(tmp_path / "a" / "b"), b"x")
