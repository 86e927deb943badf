"""The labelling job on a real Ray, over real images, on disk and in a real S3 server."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from maskrcnn import read_predictions, storage
from maskrcnn.config import LabelConfig
from maskrcnn.labelling.backlog import Backlog
from maskrcnn.labelling.job import LabellingJob, label_images
from tests.conftest import s3_client
from tests.integration.deadly_image import MARK
from tests.odd_images import ODD_IMAGES

SETS = ("coco_cc_by", "dsb2018_nuclei", "fruits_nuts", "lpbf_defects", "microcontroller")


def write_images(folder: Path, num_images: int, size: int = 32) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for place in range(num_images):
        pixels = rng.integers(0, 255, (size, size + place % 3 * 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"img-{place:04d}.png")
    return folder


def config(bundle: str, images: str | Path, output: str | Path, **more: object) -> LabelConfig:
    return LabelConfig(str(bundle), str(images), str(output), **{"num_actors": (1, 2), **more})  # type: ignore[arg-type]


def comparable(rows: pa.Table, root: str) -> list[tuple[object, ...]]:
    """Give what must be equal wherever the images lie."""
    named = ("status", "error_kind", "width", "height", "num_instances", "instances", "masks")
    return sorted(
        (row["image_uri"].removeprefix(root), *(repr(row[name]) for name in named)) for row in rows.to_pylist()
    )


@pytest.fixture(scope="module")
def real_and_odd(shared_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for name in SETS:
        (folder / name).symlink_to(shared_path / "data" / name / "images")
    (folder / "odd").mkdir()
    for odd in ODD_IMAGES:
        (folder / "odd" / odd.name).write_bytes(odd.body)
    return folder


def test_real_and_odd_images_each_get_the_expected_row_and_s3_gives_the_same(
    real_and_odd: Path, tiny_bundle: str, local_ray: None, bucket: str, tmp_path: Path
) -> None:
    report = label_images(config(tiny_bundle, real_and_odd, tmp_path / "out", rows_per_part=64))
    assert report.is_reconciled
    rows = read_predictions(str(tmp_path / "out"))
    assert len(rows) == 307 + len(ODD_IMAGES) == 327
    by_name = {Path(row["image_uri"]).name: row for row in rows.to_pylist()}
    for odd in ODD_IMAGES:
        row = by_name[odd.name]
        assert (row["status"], row["error_kind"]) == (odd.status, odd.error_kind), odd.name
        if odd.status == "ok":
            assert (row["width"], row["height"]) == (odd.width, odd.height), odd.name
    real = [row for row in by_name.values() if "/odd/" not in row["image_uri"]]
    assert {row["status"] for row in real} == {"ok"}
    assert report.record["images"]["failed"] == sum(odd.status == "error" for odd in ODD_IMAGES)
    assert report.record["errors"]["corrupt"] == sum(odd.error_kind == "corrupt" for odd in ODD_IMAGES)

    name = bucket.removeprefix("s3://")
    for path in sorted(real_and_odd.rglob("**/*")) + [
        one for part in SETS for one in sorted((real_and_odd / part).iterdir())
    ]:
        if path.is_file():
            s3_client().put_object(Bucket=name, Key=f"in/{path.relative_to(real_and_odd)}", Body=path.read_bytes())
    remote = label_images(config(tiny_bundle, f"{bucket}/in", f"{bucket}/out", rows_per_part=64))
    assert remote.is_reconciled
    assert comparable(read_predictions(f"{bucket}/out"), f"{bucket}/in") == comparable(rows, str(real_and_odd))


def test_a_second_run_reads_no_image_and_starts_nothing(
    tiny_bundle: str, local_ray: None, tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in write_images(tmp_path / "in", 5).iterdir():
        storage.put(f"{bucket}/in/{path.name}", path.read_bytes())
    first = label_images(config(tiny_bundle, f"{bucket}/in", f"{bucket}/out", rows_per_part=2))
    assert first.record["images"] == {"listed": 5, "planned": 5, "labelled": 5, "ok": 5, "failed": 0}
    assert first.record["reconcile"]["dates_complete"] == ["all"]

    def no_ray(*_: object) -> None:
        raise AssertionError("Ray is not needed to find that nothing is left")

    monkeypatch.setattr("maskrcnn.cluster.connect", no_ray)
    monkeypatch.setattr("maskrcnn.storage.read_object", no_ray)
    second = label_images(config(tiny_bundle, f"{bucket}/in", f"{bucket}/out", rows_per_part=2, device="cpu"))
    assert second.record["images"] == {"listed": 5, "planned": 0, "labelled": 0, "ok": 0, "failed": 0}
    assert second.is_reconciled


def test_new_and_changed_images_are_added_and_the_new_version_is_current(
    tiny_bundle: str, local_ray: None, tmp_path: Path
) -> None:
    images = write_images(tmp_path / "in", 3)
    label_images(config(tiny_bundle, images, tmp_path / "out"))
    Image.new("RGB", (48, 40)).save(images / "img-0000.png")
    Image.new("RGB", (50, 50)).save(images / "new.png")
    report = label_images(config(tiny_bundle, images, tmp_path / "out"))
    assert report.record["images"]["planned"] == 2
    rows = {Path(row["image_uri"]).name: row for row in read_predictions(str(tmp_path / "out")).to_pylist()}
    assert len(rows) == 4
    assert (rows["img-0000.png"]["width"], rows["img-0000.png"]["height"]) == (48, 40)
    marker = json.loads((tmp_path / "out" / "complete" / "all.json").read_text())
    assert (marker["plans"], marker["images"]) == (2, 5)


def test_errors_are_tried_again_when_asked(tiny_bundle: str, local_ray: None, tmp_path: Path) -> None:
    images = write_images(tmp_path / "in", 2)
    manifest = tmp_path / "manifest.parquet"
    from pyarrow import parquet as pq

    (images / "late.png").write_bytes(b"")
    uris = [str(path) for path in sorted(images.iterdir())]
    pq.write_table(pa.table({"image_uri": uris, "store": ["s1", "s2", "s3"]}), manifest)
    label_images(config(tiny_bundle, manifest, tmp_path / "out"))
    assert label_images(config(tiny_bundle, manifest, tmp_path / "out")).record["images"]["planned"] == 0
    report = label_images(config(tiny_bundle, manifest, tmp_path / "out", retry_errors=True))
    assert report.record["images"]["planned"] == 1
    rows = {row["store"]: row for row in read_predictions(str(tmp_path / "out")).to_pylist()}
    assert (rows["s3"]["attempt"], rows["s3"]["error_kind"]) == (2, "corrupt")
    assert (rows["s1"]["attempt"], rows["s1"]["status"]) == (1, "ok")


def test_an_image_that_kills_its_worker_costs_itself_only(tiny_bundle: str, local_ray: None, tmp_path: Path) -> None:
    images = write_images(tmp_path / "in", 16)
    with (images / "img-0008.png").open("ab") as file:
        file.write(MARK)
    report = label_images(config(tiny_bundle, images, tmp_path / "out", rows_per_part=16, num_actors=(1, 1)))
    assert report.is_reconciled
    rows = {Path(row["image_uri"]).name: row for row in read_predictions(str(tmp_path / "out")).to_pylist()}
    assert len(rows) == 16
    assert rows.pop("img-0008.png")["error_kind"] == "worker_crash"
    assert {row["status"] for row in rows.values()} == {"ok"}
    assert report.record["errors"] == {"worker_crash": 1}


def test_dates_become_folders_and_each_has_its_completion_marker(
    tiny_bundle: str, local_ray: None, tmp_path: Path
) -> None:
    for date in ("2026-11-21", "2026-11-22"):
        write_images(tmp_path / "in" / date, 3)
    label_images(config(tiny_bundle, tmp_path / "in", tmp_path / "out", date_from=r"/(\d{4}-\d\d-\d\d)/"))
    parts = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out" / "table").rglob("*.parquet"))
    assert parts == [
        "table/date=2026-11-21/part-000001-00000.parquet",
        "table/date=2026-11-22/part-000001-00001.parquet",
    ]
    assert sorted(path.stem for path in (tmp_path / "out" / "complete").iterdir()) == ["2026-11-21", "2026-11-22"]
    assert len(read_predictions(str(tmp_path / "out"), dates=["2026-11-22"])) == 3


def test_a_dry_run_counts_and_writes_nothing(tiny_bundle: str, tmp_path: Path) -> None:
    images = write_images(tmp_path / "in", 5)
    dry_run = LabellingJob(config(tiny_bundle, images, tmp_path / "out", rows_per_part=2)).dry_run()
    assert (dry_run.num_listed, dry_run.num_to_plan, dry_run.num_parts_to_plan) == (5, 5, 3)
    assert dry_run.num_bytes == sum(path.stat().st_size for path in images.iterdir())
    assert not (tmp_path / "out").exists()


def test_a_run_of_several_plans_is_one_table_and_counts_as_its_dry_run_said(
    tiny_bundle: str, local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = write_images(tmp_path / "in", 3)
    label_images(config(tiny_bundle, images, tmp_path / "out", rows_per_part=2))
    write_images(images, 10)
    monkeypatch.setattr("maskrcnn.labelling.job.Backlog", partial(Backlog, max_rows=4))
    job = LabellingJob(config(tiny_bundle, images, tmp_path / "out", rows_per_part=2))
    dry_run = job.dry_run()
    changed = 3  # the first three were written again
    assert (dry_run.num_listed, dry_run.num_planned_before) == (10, 3)
    assert (dry_run.num_to_plan, dry_run.num_parts_to_plan, dry_run.num_parts_left) == (7 + changed, 5, 0)
    report = job.run()
    assert report.record["images"] == {"listed": 10, "planned": 10, "labelled": 10, "ok": 10, "failed": 0}
    assert (report.record["reconcile"]["plans"], report.record["parts"]["made"]) == (4, 5)
    assert len(read_predictions(str(tmp_path / "out"))) == 10
    marker = json.loads((tmp_path / "out" / "complete" / "all.json").read_text())
    assert (marker["plans"], marker["parts"], marker["images"]) == (4, 7, 13)


def test_without_masks_the_boxes_are_the_same(tiny_bundle: str, local_ray: None, tmp_path: Path) -> None:
    images = write_images(tmp_path / "in", 3)
    label_images(config(tiny_bundle, images, tmp_path / "full"))
    label_images(config(tiny_bundle, images, tmp_path / "none", masks="none"))
    full, none = (read_predictions(str(tmp_path / name)).to_pylist() for name in ("full", "none"))
    assert [row["masks"] for row in none] == [None, None, None]
    for one, other in zip(full, none, strict=True):
        assert one["num_instances"] > 0
        assert [i["score"] for i in one["instances"]] == [i["score"] for i in other["instances"]]
        assert [i["x"] for i in one["instances"]] == [i["x"] for i in other["instances"]]
        assert all(instance["area"] is None for instance in other["instances"])


def test_the_record_says_what_was_done(tiny_bundle: str, local_ray: None, tmp_path: Path) -> None:
    images = write_images(tmp_path / "in", 4)
    report = label_images(config(tiny_bundle, images, tmp_path / "out", price_per_hour=3.6))
    record = json.loads(storage.read_bytes(report.record_uri))
    assert record["run_id"] == report.run_id
    assert set(record["stage_images_per_s"]) == {"read", "decode", "predict", "put"}
    assert record["stage_images_per_s"]["predict"] > 0
    assert record["cost"] == pytest.approx(record["seconds"] / 1000, rel=0.01)
    assert record["config"]["images_uri"] == str(images)
    assert record["settings"]["score_threshold"] == 0.3
    assert record["versions"]["torch"]
    assert record["bytes_read"] == sum(path.stat().st_size for path in images.iterdir())
    assert record["reconcile"]["parts_left"] == []
