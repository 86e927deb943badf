"""The first page: what a table holds, in numbers, charts and tables."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from maskrcnn.progress import clock
from maskrcnn.report.charts import Chart, draw, paint_bars, paint_columns
from maskrcnn.report.runs import Run
from maskrcnn.report.tally import SCORE_BINS, SIDE_BINS_PER_OCTAVE, CategoryTally, Tally, even_bins

MOST_BARS = 16
MOST_COUNT_BINS = 40


@dataclass(frozen=True)
class Card:
    """A number with what it counts."""

    number: str
    text: str


def build_cards(tally: Tally, runs: list[Run]) -> list[Card]:
    """Give the numbers to see first."""
    cards = [
        Card(f"{tally.num_images:,}", "images"),
        Card(f"{tally.num_labelled:,}", "labelled"),
        Card(f"{tally.num_failed:,}", "failed"),
        Card(f"{tally.num_detections:,}", "detections"),
        Card(f"{len(tally.categories):,}", "categories found"),
    ]
    if tally.num_labelled:
        cards.insert(4, Card(f"{tally.num_detections / tally.num_labelled:,.1f}", "detections an image"))
    if tally.lowest_threshold is not None:
        cards.append(Card(f"{tally.lowest_threshold:.2g}", "score threshold"))
    if runs:
        cards.append(Card(clock(sum(run.seconds for run in runs)), f"in {len(runs)} run{'s' * (len(runs) > 1)}"))
    costs = [run.cost for run in runs if run.cost is not None]
    if costs:
        cards.append(Card(f"{sum(costs):,.2f}", "cost"))
        num_images = sum(run.num_images for run in runs if run.cost is not None)
        cards.append(Card(f"{1e6 * sum(costs) / num_images:,.2f}", "cost of a million images"))
    return cards


def build_charts(tally: Tally, runs: list[Run]) -> list[Chart]:
    """Draw what there is to draw."""
    charts = []
    if tally.num_detections:
        charts += [_draw_categories(tally), _draw_scores(tally), _draw_sides(tally)]
    if tally.num_labelled:
        firsts, counts = even_bins(tally.num_by_image, MOST_COUNT_BINS)
        edges = [first - 0.5 for first in (*firsts, 2 * firsts[-1] - firsts[-2] if len(firsts) > 1 else firsts[-1] + 1)]
        paint = partial(paint_columns, edges=edges, counts=counts, x_label="detections in an image", y_label="images")
        charts.append(draw("counts", "Detections an image", paint))
    if measured := next((run for run in runs if run.stages), None):
        paint = partial(
            paint_bars,
            labels=list(measured.stages),
            values=list(measured.stages.values()),
            x_label="images/s of a worker",
            is_log=True,
        )
        note = "The newest run; each stage as if it ran alone. The slowest is the limit."
        charts.append(draw("stages", "Throughput by stage", paint, note=note, height_in=2.2))
    return charts


def by_frequency(tally: Tally) -> list[CategoryTally]:
    """Give the categories that occur, the most frequent first."""
    return sorted(tally.categories.values(), key=lambda one: (-one.num_detections, one.name))


def _draw_categories(tally: Tally) -> Chart:
    categories = by_frequency(tally)
    shown = categories[:MOST_BARS]
    labels = [one.name for one in shown]
    values = [one.num_detections for one in shown]
    if rest := categories[MOST_BARS:]:
        labels.append(f"{len(rest)} others")
        values.append(sum(one.num_detections for one in rest))
    paint = partial(paint_bars, labels=labels, values=values, x_label="detections")
    return draw("categories", "Detections by category", paint, height_in=max(1.6, 0.7 + 0.24 * len(labels)))


def _draw_scores(tally: Tally) -> Chart:
    counts = tally.score_counts.tolist()
    first = next(place for place, count in enumerate(counts) if count)
    first -= first % (SCORE_BINS // 10)
    edges = [place / SCORE_BINS for place in range(first, SCORE_BINS + 1)]
    paint = partial(paint_columns, edges=edges, counts=counts[first:], x_label="score", y_label="detections")
    return draw("scores", "Scores", paint)


def _draw_sides(tally: Tally) -> Chart:
    first, last = min(tally.side_counts), max(tally.side_counts)
    edges = [2 ** (place / SIDE_BINS_PER_OCTAVE) for place in range(first, last + 2)]
    counts = [tally.side_counts[place] for place in range(first, last + 1)]
    paint = partial(
        paint_columns, edges=edges, counts=counts, x_label="root of the area, px", y_label="detections", is_log=True
    )
    return draw("sizes", "Sizes of detections", paint)
