"""A sample is decided for each image by its URI alone: as large as asked for, nested, and the same in any order."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn.labelling.sampling import Choice, draw_by_uri
from tests.planning import plan_all
from tests.unit.test_plan import attempts, failed, manifest

SHARES = st.floats(0, 1, exclude_min=True)
SEEDS = st.integers(0, 2**63 - 1)
KEYS = st.text(min_size=1, max_size=4).filter(lambda text: "\0" not in text)
URIS = st.lists(st.text(max_size=12), max_size=60)


def column(uris: list[str], chunk: int = 1 << 20) -> pa.ChunkedArray:
    pieces = [pa.array(uris[start : start + chunk], pa.string()) for start in range(0, len(uris), chunk)]
    return pa.chunked_array(pieces, pa.string())


@settings(deadline=None, max_examples=40)
@given(SHARES, SEEDS, st.sampled_from(["s3://shop/photos/{:07d}.jpg", "/data/store-{0}/camera-1/{0}.png", "{}"]))
def test_the_share_is_as_a_fair_draws(share: float, seed: int, form: str) -> None:
    num_images = 4000
    drawn = draw_by_uri(column([form.format(place) for place in range(num_images)]), share, seed)
    deviation = math.sqrt(num_images * share * (1 - share))
    # Six standard deviations, or for the rarest shares as many as are hardly ever drawn.
    assert abs(int(drawn.sum()) - num_images * share) <= 6 * deviation + 6


@settings(deadline=None)
@given(URIS, SHARES, SHARES, SEEDS)
def test_a_larger_sample_holds_the_smaller_one(uris: list[str], one: float, other: float, seed: int) -> None:
    small, large = (draw_by_uri(column(uris), share, seed) for share in sorted((one, other)))
    assert not (small & ~large).any()
    assert draw_by_uri(column(uris), 1, seed).all()


@settings(deadline=None)
@given(URIS, SHARES, SEEDS, st.integers(1, 7), st.randoms(use_true_random=False))
def test_neither_order_nor_batches_matter(uris: list[str], share: float, seed: int, chunk: int, rng: object) -> None:
    drawn = draw_by_uri(column(uris), share, seed)
    order = list(range(len(uris)))
    rng.shuffle(order)  # type: ignore[attr-defined]
    again = draw_by_uri(column([uris[place] for place in order], chunk), share, seed)
    np.testing.assert_array_equal(again, drawn[order])


def test_the_sample_of_today_is_that_of_every_version() -> None:
    uris = [f"s3://shop/photos/{place:03d}.jpg" for place in range(300)]
    drawn = [uris[place][-7:-4] for place in np.flatnonzero(draw_by_uri(column(uris), 0.02, 0))]
    assert drawn == ["027", "052", "106", "117", "135", "200", "291", "299"]
    other = draw_by_uri(column(uris), 0.5, 1) ^ draw_by_uri(column(uris), 0.5, 0)
    assert 100 < other.sum() < 200  # another seed draws others


def test_what_is_left_out_is_counted_but_the_jobs_own_files_are_not() -> None:
    choose = Choice("/in/out", 0.5, 3)
    listed = [f"/in/{place}.jpg" for place in range(100)]
    rows = pa.table({"image_uri": [*listed, "/in/out/plans/1.parquet"]})
    drawn = choose(rows)["image_uri"].to_pylist()
    assert set(drawn) < set(listed)
    assert len(drawn) + choose.num_outside_sample == 100


@settings(deadline=None, max_examples=40)
@given(st.lists(KEYS, unique=True, max_size=40), st.data())
def test_samples_one_after_the_other_plan_each_image_once(uris: list[str], data: st.DataObject) -> None:
    shares = data.draw(st.lists(SHARES, max_size=4))
    seeds = data.draw(st.lists(st.integers(0, 3), min_size=len(shares), max_size=len(shares)))
    planned: list[tuple[str, str, int]] = []
    for share, seed in [*zip(shares, seeds, strict=True), (1.0, 0)]:
        listed = manifest(*((uri, "1", None) for uri in uris))
        drawn = Choice(None, share, seed)(listed)
        for rows in plan_all(drawn, attempts(*planned), failed(), [], 3, max_rows=5):
            planned += [(row["image_uri"], row["etag"], row["attempt"]) for row in rows.to_pylist()]
    assert sorted(planned) == sorted((uri, "1", 1) for uri in uris)
