"""Many masks at once: what one by one gives, and nothing that is broken passes for sound."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn.coco import rle
from maskrcnn.coco.packed import PackedBytes
from maskrcnn.coco.packing import check_rles
from maskrcnn.coco.runs import decode_counts, decode_counts_batch
from maskrcnn.coco.survey import find_plain, measure, survey
from maskrcnn.errors import AnnotationError

MASKS = st.builds(
    lambda seed, height, width, share: rle.from_mask(np.random.default_rng(seed).random((height, width)) < share),
    st.integers(0, 2**32),
    st.integers(1, 30),
    st.integers(1, 30),
    st.sampled_from([0, 0.02, 0.5, 0.98, 1]),
)


def pack(masks: list[rle.Rle]) -> tuple[PackedBytes, np.ndarray]:
    sizes = np.array([mask["size"] for mask in masks], np.int64).reshape(-1, 2)
    return PackedBytes.from_list([mask["counts"] for mask in masks]), sizes


@settings(deadline=None)
@given(st.lists(MASKS, max_size=12))
def test_all_at_once_is_as_one_by_one(masks: list[rle.Rle]) -> None:
    counts, sizes = pack(masks)
    runs, offsets, is_readable = decode_counts_batch(counts.content, counts.offsets)
    assert is_readable.all()
    for index, mask in enumerate(masks):
        assert runs[offsets[index] : offsets[index + 1]].tolist() == decode_counts(mask["counts"]).tolist()
    assert find_plain(counts, sizes).all()
    is_plain, *measured = survey(counts, sizes)
    assert is_plain.all()
    areas, boxes = measure(counts, sizes[:, 0])
    assert [each.tolist() for each in measured] == [areas.tolist(), boxes.tolist()]
    assert areas.tolist() == [rle.area(mask) for mask in masks]
    assert boxes.tolist() == [rle.to_bbox(mask) for mask in masks]


@settings(deadline=None, max_examples=300)
@given(st.lists(MASKS, min_size=1, max_size=5), st.data())
def test_nothing_broken_is_found_plain(masks: list[rle.Rle], data: st.DataObject) -> None:
    texts = [bytearray(mask["counts"]) for mask in masks]
    for text in texts:
        for _ in range(data.draw(st.integers(0, 2))):
            text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(40, 120))
        if data.draw(st.booleans()):
            del text[len(text) - data.draw(st.integers(0, 2)) :]
    _, sizes = pack(masks)
    is_plain = find_plain(PackedBytes.from_list([bytes(text) for text in texts]), sizes)
    for text, mask, passes in zip(texts, masks, is_plain.tolist(), strict=True):
        if passes:
            written = {"size": mask["size"], "counts": bytes(text)}
            assert rle.from_segmentation(written, *mask["size"])["counts"] == bytes(text)


def test_empty_runs_are_joined_and_the_first_broken_mask_is_named() -> None:
    drawn = rle.from_mask(np.eye(4))
    parted = {"size": [4, 4], "counts": rle.encode_counts([3, 2, 0, 2, 9])}
    counts, sizes = pack([drawn, parted, drawn])
    assert find_plain(counts, sizes).tolist() == [True, False, True]
    checked = check_rles(counts, sizes, str, "x.json").packed.counts
    assert [checked[index] for index in range(3)] == [drawn["counts"], rle.encode_counts([3, 4, 9]), drawn["counts"]]
    broken, _ = pack([drawn, parted, {"size": [4, 4], "counts": b"9"}, {"size": [4, 4], "counts": b"\xff"}])
    with pytest.raises(AnnotationError, match="row 2 segmentation counts must sum to 4 x 4 = 16 px, got 9, in t/"):
        check_rles(broken, np.full((4, 2), 4), "row {}".format, "t/")


def test_masks_beyond_a_block_are_surveyed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maskrcnn.coco.survey._BLOCK_BYTES", 5)
    masks = [rle.from_mask(np.eye(side)) for side in (1, 9, 2, 30, 3)]
    counts, sizes = pack(masks)
    assert find_plain(counts, sizes).all()
    assert measure(counts, sizes[:, 0])[0].tolist() == [1, 9, 2, 30, 3]
    assert not find_plain(counts, sizes + 1).any()
