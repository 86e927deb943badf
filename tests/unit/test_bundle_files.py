"""A bundle's two files: whichever moment a writer is killed at, readers find weights and JSON that belong together."""

from __future__ import annotations

import hashlib
import itertools
import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from maskrcnn import storage
from maskrcnn.errors import AccessError, BundleError
from maskrcnn.model.bundle_files import read_weights_file, write_files

NUM_CHANGES = 6
"""More than a writer makes, so that one of the trials is not killed."""


class KilledError(Exception):
    """The process is gone."""


def weights_of(number: int) -> bytes:
    return f"weights {number}".encode()


def write(uri: str, number: int) -> None:
    weights = weights_of(number)
    write_files(uri, weights, json.dumps({"weights_sha256": hashlib.sha256(weights).hexdigest()}).encode())


def read(uri: str) -> bytes:
    document = json.loads(storage.read_bytes(storage.join(uri, "model.json")))
    return read_weights_file(uri, document["weights_sha256"])


def write_until_killed(uri: str, number: int, num_changes: int, see: Callable[[], None] = lambda: None) -> bool:
    """Write, but be killed before any further change to the store; say whether it came to the end."""
    left = iter(range(num_changes))

    def counted(change: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*args: Any) -> None:
            if next(left, None) is None:
                raise KilledError
            change(*args)
            see()

        return counting

    with pytest.MonkeyPatch.context() as patch:
        for name in ("put", "delete"):
            patch.setattr(storage, name, counted(getattr(storage, name)))
        try:
            write(uri, number)
        except KilledError:
            return False
    return True


@pytest.fixture(params=["local", "remote"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "bundle") if request.param == "local" else f"memory://{uuid.uuid4().hex}/bundle"


def test_a_new_bundle_is_two_files_and_so_is_one_that_was_replaced(uri: str) -> None:
    for number in range(3):
        write(uri, number)
        assert read(uri) == storage.read_bytes(storage.join(uri, "model.safetensors")) == weights_of(number)
        names = sorted(each.rsplit("/", 1)[1] for each in storage.list_uris(uri))
        assert names == ["model.json", "model.safetensors"]


def test_a_new_bundle_that_was_not_written_to_its_end_is_none(uri: str) -> None:
    assert not write_until_killed(uri, 0, 1)
    assert not storage.exists(storage.join(uri, "model.json"))
    write(uri, 1)
    assert read(uri) == weights_of(1)


def test_a_reader_at_any_moment_of_a_replacement_finds_a_whole_bundle(uri: str) -> None:
    write(uri, 0)
    seen: list[bytes] = []
    assert write_until_killed(uri, 1, NUM_CHANGES, lambda: seen.append(read(uri)))
    assert seen == [weights_of(0), *[weights_of(1)] * 3]


def test_replacements_that_are_killed_at_any_moment_one_after_the_other_leave_a_whole_bundle() -> None:
    for kills in itertools.product(range(NUM_CHANGES), repeat=3):
        uri = f"memory://{uuid.uuid4().hex}/bundle"
        write(uri, 0)
        current = 0
        for number, num_changes in enumerate(kills, start=1):
            is_whole = write_until_killed(uri, number, num_changes)
            found = read(uri)
            expected = [weights_of(number)] if is_whole else [weights_of(current), weights_of(number)]
            assert found in expected, kills
            current = int(found.split()[1])


def test_where_nothing_may_be_deleted_a_bundle_is_replaced_all_the_same(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(uri: str) -> None:
        raise AccessError(uri, "AccessDenied")

    monkeypatch.setattr(storage, "delete", refuse)
    for number in range(4):
        write(uri, number)
        assert read(uri) == weights_of(number)


@pytest.mark.parametrize("document", [b"", b"{", b"[" * 10**5, b"[]", b"{}", b'{"weights_sha256": 7}'])
def test_a_bundle_whose_json_is_damaged_is_replaced(uri: str, document: bytes) -> None:
    write(uri, 0)
    storage.put(storage.join(uri, "model.json"), document)
    storage.put(storage.join(uri, "model.next.safetensors"), b"of nobody")
    write(uri, 1)
    assert read(uri) == storage.read_bytes(storage.join(uri, "model.safetensors")) == weights_of(1)


def test_weights_of_another_bundle_are_refused_wherever_they_lie(uri: str) -> None:
    write(uri, 0)
    for name in ("model.safetensors", "model.next.safetensors"):
        storage.put(storage.join(uri, name), b"another's")
        with pytest.raises(BundleError, match=r"^model\.safetensors must have the sha256 .* copy both again"):
            read(uri)
