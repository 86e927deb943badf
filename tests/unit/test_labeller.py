from __future__ import annotations

import io
import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from maskrcnn import storage
from maskrcnn.config import SliceConfig
from maskrcnn.labelling import labeller as labeller_module
from maskrcnn.labelling.labeller import Labeller
from maskrcnn.labelling.results import ImageResult, ListedImage
from maskrcnn.labelling.stages import ByteBudget, StageSeconds, Turns
from maskrcnn.model.bundle import load_bundle, load_network
from maskrcnn.model.predictor import AnyPredictor, Predictor
from maskrcnn.model.slicing import SlicedPredictor
from tests.blobs import BlobPredictor, as_rows, paint


@pytest.fixture(scope="module")
def predictor(tiny_bundle: str) -> Predictor:
    return Predictor.from_bundle(tiny_bundle, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def mixed_images(tmp_path_factory: pytest.TempPathFactory) -> list[ListedImage]:
    """Forty images of ten sizes, upright and wide."""
    folder = tmp_path_factory.mktemp("mixed")
    rng = np.random.default_rng(3)
    for place in range(40):
        height, width = 40 + 17 * (place % 5), 60 + 23 * (place % 2)
        Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(folder / f"{place:02d}.png")
    return listed(folder)


def listed(folder: Path) -> list[ListedImage]:
    metas = [storage.stat(str(path)) for path in sorted(folder.iterdir())]
    return [ListedImage(meta.uri, meta.etag, meta.size) for meta in metas]


def build(predictor: AnyPredictor, batch_size: int = 2, max_pixels: int = 10**8) -> Labeller:
    return Labeller(predictor, batch_size=batch_size, num_decoders=2, with_masks=True, max_pixels=max_pixels)


def as_row(result: ImageResult) -> tuple[object, ...]:
    found = result.detections
    assert found is not None
    masks = [rle["counts"] for rle in found.rles]
    return (result.width, result.height, found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), masks)


def test_rows_do_not_depend_on_batch_mates(predictor: Predictor, mixed_images: list[ListedImage]) -> None:
    rows = {
        one.uri: as_row(result)
        for one, result in zip(mixed_images, build(predictor, 2).label(mixed_images), strict=True)
    }
    shuffled = random.Random(5).sample(mixed_images, len(mixed_images))
    again = {one.uri: as_row(result) for one, result in zip(shuffled, build(predictor, 7).label(shuffled), strict=True)}
    assert sum(len(row[3]) for row in rows.values()) > 40  # type: ignore[arg-type, misc]
    assert again == rows


def test_results_come_in_the_order_of_the_images_and_failures_are_results(
    predictor: Predictor, mixed_images: list[ListedImage], tmp_path: Path
) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"<html>")
    (bad,) = listed(tmp_path)
    images = [
        mixed_images[0],
        bad,
        ListedImage(str(tmp_path / "gone.jpg"), "", 0),
        ListedImage(mixed_images[1].uri, "another etag", mixed_images[1].size),
        mixed_images[1],
    ]
    results = build(predictor).label(images)
    assert [result.error_kind for result in results] == [None, "unsupported", "not_found", "not_found", None]
    assert all(result.error_message for result in results[1:4])


def test_too_large_an_image_is_refused_from_its_header(predictor: Predictor, mixed_images: list[ListedImage]) -> None:
    (result,) = build(predictor, max_pixels=100).label(mixed_images[:1])
    assert result.error_kind == "too_large"


def test_memory_is_bounded_even_when_no_bucket_ever_fills(
    predictor: Predictor, mixed_images: list[ListedImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labeller_module, "MAX_DECODED_BYTES", 30_000)
    results = build(predictor, batch_size=1000).label(mixed_images)
    assert [result.error_kind for result in results] == [None] * 40


def test_every_stage_is_timed_and_every_result_is_told(predictor: Predictor, mixed_images: list[ListedImage]) -> None:
    seconds, told = StageSeconds(), []
    results = build(predictor).label(mixed_images, seconds, on_result=told.append)
    assert seconds.read > 0
    assert seconds.decode > 0
    assert seconds.predict > 0
    assert len(told) == len(results) == 40


def test_when_a_batch_fails_only_the_guilty_image_pays(
    predictor: Predictor, mixed_images: list[ListedImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Predictor.__call__
    guilty = Image.open(mixed_images[3].uri).size

    def explode(self: Predictor, images: list[object], **options: object) -> object:
        if any(image.size[::-1] == guilty for image in images):  # type: ignore[attr-defined]
            raise RuntimeError("no kernel for this shape")
        return real(self, images, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Predictor, "__call__", explode)
    results = build(predictor).label(mixed_images[:10])
    failed = [place for place, result in enumerate(results) if result.error_kind == "worker_crash"]
    assert failed == [place for place in range(10) if Image.open(mixed_images[place].uri).size == guilty]
    assert results[3].error_message == "RuntimeError: no kernel for this shape"


def test_nothing_to_label_is_nothing(predictor: Predictor) -> None:
    assert build(predictor).label([]) == []


def test_a_budget_lets_one_large_item_through_alone() -> None:
    budget = ByteBudget(10)
    budget.acquire(100)
    passed = threading.Event()

    def second() -> None:
        budget.acquire(1)
        passed.set()

    waiter = threading.Thread(target=second)
    waiter.start()
    assert not passed.wait(0.1)
    assert budget.is_starved
    budget.release(100)
    assert passed.wait(5)
    waiter.join()
    assert not budget.is_starved


def test_images_are_decoded_as_the_bundle_says(tiny_bundle: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    body = io.BytesIO()
    Image.new("RGB", (60, 40)).save(body, "JPEG", exif=exif)
    (tmp_path / "turned.jpg").write_bytes(body.getvalue())
    (result,) = build(Predictor.from_bundle(tiny_bundle, device="cpu")).label(listed(tmp_path))
    assert (result.width, result.height) == (40, 60)


def test_large_jpegs_are_reduced_as_the_predictor_reduces_them(
    tiny_bundle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = load_bundle(tiny_bundle)
    reducing = replace(bundle.preprocess, decode_scale=8)
    predictor = Predictor(load_network(bundle), reducing, bundle.thresholds, categories=bundle.categories)
    exif = Image.Exif()
    exif[0x0112] = 6
    large = Image.fromarray(np.random.default_rng(0).integers(0, 255, (301, 450, 3), dtype=np.uint8))
    large.save(tmp_path / "0.jpg", exif=exif)
    large.save(tmp_path / "1.png")
    taken: list[int] = []
    acquire = ByteBudget.acquire

    def note(self: ByteBudget, num_bytes: int) -> None:
        taken.append(num_bytes)
        acquire(self, num_bytes)

    monkeypatch.setattr(ByteBudget, "acquire", note)
    results = build(predictor).label(listed(tmp_path))
    assert sorted(taken) == [3 * 38 * 57, 3 * 301 * 450]  # the JPEG at an eighth, its sides rounded up
    assert [(result.width, result.height) for result in results] == [(301, 450), (450, 301)]
    for name, result in zip(("0.jpg", "1.png"), results, strict=True):
        [found] = predictor([(tmp_path / name).read_bytes()])
        assert len(found) > 0
        assert as_row(result) == as_row(ImageResult(found.size[1], found.size[0], found))


def test_tiles_go_through_with_bad_images_between_them_and_whole_pixels_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = build(SlicedPredictor(BlobPredictor(), SliceConfig(128, 0.3)))
    exact._preprocess = replace(exact._preprocess, decode_scale=8)
    masks = [np.zeros((200, 300), bool) for _ in range(3)]
    masks[0][20:60, 20:50], masks[1][90:130, 110:150], masks[2][150:190, 250:290] = True, True, True
    large = paint((200, 300), masks, [1, 2, 3])
    Image.fromarray(large).save(tmp_path / "0.png")
    (tmp_path / "1.png").write_bytes((tmp_path / "0.png").read_bytes()[:300])
    Image.fromarray(large[80:140, 100:160]).save(tmp_path / "2.png")
    Image.fromarray(large).save(tmp_path / "3.jpg")
    taken: list[int] = []
    acquire = ByteBudget.acquire

    def note(self: ByteBudget, num_bytes: int) -> None:
        taken.append(num_bytes)
        acquire(self, num_bytes)

    monkeypatch.setattr(ByteBudget, "acquire", note)
    results = exact.label(listed(tmp_path))
    assert [result.error_kind for result in results] == [None, "corrupt", None, None]
    assert [result.num_instances for result in results[:3]] == [3, 0, 1]
    for result, expected in ((results[0], large), (results[2], large[80:140, 100:160])):
        tensor = torch.from_numpy(np.ascontiguousarray(expected.transpose(2, 0, 1)))
        assert result.detections is not None
        assert as_rows(result.detections) == as_rows(BlobPredictor()([tensor])[0])
    assert sorted(taken) == [3 * 60 * 60] + [3 * 200 * 300] * 3


def test_of_those_that_wait_the_oldest_parts_turn_is_next() -> None:
    turns, order, inside = Turns(1), [], threading.Event()
    leave = threading.Event()

    def hold() -> None:
        with turns.take(0):
            inside.set()
            leave.wait(10)

    def pass_through(part: int) -> None:
        with turns.take(part):
            order.append(part)

    holder = threading.Thread(target=hold)
    holder.start()
    assert inside.wait(10)
    waiting = []
    for part in (5, 2, 9, 2):
        thread = threading.Thread(target=pass_through, args=(part,))
        thread.start()
        waiting.append(thread)
        while len(turns._waiting) < len(waiting):
            time.sleep(0.001)
    leave.set()
    for thread in (holder, *waiting):
        thread.join(10)
    assert order == [2, 2, 5, 9]


def test_two_parts_at_once_give_the_same_rows(predictor: Predictor, mixed_images: list[ListedImage]) -> None:
    labeller = build(predictor)
    parts = mixed_images[:20], mixed_images[20:]
    with ThreadPoolExecutor(2) as pool:
        together = [row for part in pool.map(labeller.label, parts) for row in map(as_row, part)]
    assert together == [as_row(result) for result in build(predictor).label(mixed_images)]


def test_every_piece_of_work_is_kept_where_a_picture_is_wanted(
    predictor: Predictor, mixed_images: list[ListedImage]
) -> None:
    seconds = StageSeconds(keeps_spans=True)
    build(predictor).label(mixed_images[:6], seconds)
    assert Counter(span.stage for span in seconds.spans)["decode"] == 6
    assert {span.stage for span in seconds.spans} == {"read", "decode", "predict"}
    for stage in ("read", "decode", "predict"):
        total = sum(span.end - span.begin for span in seconds.spans if span.stage == stage)
        assert total == pytest.approx(getattr(seconds, stage))
    assert not StageSeconds().spans
