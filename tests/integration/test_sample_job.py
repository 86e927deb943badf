"""A sample of a night, and then all of it, into the same output: each image once, and told apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from maskrcnn import read_predictions, storage
from maskrcnn.commands.predict import describe_dry_run, describe_run
from maskrcnn.errors import InputError
from maskrcnn.labelling.job import LabellingJob, label_images
from tests.integration.test_labelling_job import config, write_images


def names(output: Path) -> set[str]:
    return {Path(uri).name for uri in read_predictions(str(output), columns=["image_uri"])["image_uri"].to_pylist()}


def markers(output: Path) -> dict[str, int]:
    return {path.name: json.loads(path.read_text())["images"] for path in (output / "complete").iterdir()}


def test_a_sample_grows_into_the_whole_without_labelling_an_image_twice(
    tiny_bundle: str, local_ray: None, tmp_path: Path
) -> None:
    images, output = write_images(tmp_path / "in", 40), tmp_path / "out"
    dry_run = LabellingJob(config(tiny_bundle, images, output, sample=0.2)).dry_run()
    assert (dry_run.num_listed, dry_run.num_outside_sample) == (dry_run.num_to_plan, 40 - dry_run.num_to_plan)
    told = describe_dry_run(dry_run, sample=0.2)
    assert told.startswith(f"sample of 0.2: {dry_run.num_to_plan} of 40 images; would plan {dry_run.num_to_plan} of ")

    first = label_images(config(tiny_bundle, images, output, sample=0.2))
    small = names(output)
    assert len(small) == dry_run.num_to_plan
    assert describe_run(first).startswith(f"sample of 0.2: {len(small)} of 40 images; {len(small)} images listed, ")
    assert json.loads(storage.read_bytes(first.record_uri))["sample"] == {
        "share": 0.2,
        "seed": 0,
        "images_outside": 40 - len(small),
    }
    assert markers(output) == {"all.sample.json": len(small)}

    whole = label_images(config(tiny_bundle, images, output))
    assert whole.record["sample"] is None
    assert whole.record["images"]["labelled"] == 40 - len(small)
    assert len(names(output)) == 40
    assert markers(output) == {"all.json": 40, "all.sample.json": len(small)}


def test_a_sample_without_images_is_told(tiny_bundle: str, tmp_path: Path) -> None:
    images = write_images(tmp_path / "in", 3)
    rule = r"--images must hold an image of the sample, and holds none of --sample 1e-09 with --seed 0, of 3, in "
    with pytest.raises(InputError, match=rule):
        LabellingJob(config(tiny_bundle, images, tmp_path / "out", sample=1e-9))


@pytest.mark.parametrize("share", [0.0, 1.1, -1.0, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(InputError, match=r"--sample must be in \(0, 1\]: a share of the images, got "):
        config("b", "i", "o", sample=share)
