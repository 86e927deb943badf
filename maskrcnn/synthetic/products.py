"""The products: four kinds of package, each drawn on a patch of its own. Knows nothing of where they will stand.

A patch is drawn several times too large and shrunk, so that its alpha is how much of each pixel it covers.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

CATEGORIES: dict[int, str] = {2: "bottle", 3: "can", 5: "box", 8: "bag"}
"""category_id -> name; sparse on purpose, as real files are."""

_BRANDS = ("OATS", "FIZZ", "MINT", "NORI", "SOLA", "PURA", "ZEST", "BONO", "VELA", "LUMO", "CRISP", "TEA")
_WIDTH_SHARES = {2: (0.27, 0.34), 3: (0.36, 0.44), 5: (0.42, 0.66), 8: (0.52, 0.68)}  # of the product's height
_HEIGHT_SHARES = {2: (0.84, 0.98), 3: (0.46, 0.62), 5: (0.62, 0.95), 8: (0.6, 0.85)}  # of the shelf's clear height

Color = tuple[int, int, int]

_PALETTES: tuple[tuple[Color, Color, Color], ...] = (
    ((196, 30, 38), (250, 244, 232), (244, 196, 48)),
    ((24, 74, 150), (240, 246, 252), (226, 58, 46)),
    ((28, 112, 66), (248, 240, 212), (206, 44, 40)),
    ((232, 128, 26), (255, 250, 240), (112, 54, 20)),
    ((245, 202, 58), (200, 34, 44), (32, 72, 140)),
    ((96, 58, 34), (238, 216, 176), (214, 140, 40)),
    ((38, 150, 160), (250, 250, 246), (240, 120, 80)),
    ((112, 44, 110), (246, 232, 242), (240, 180, 60)),
    ((228, 226, 218), (40, 96, 160), (220, 70, 60)),
    ((54, 58, 66), (226, 190, 110), (250, 246, 236)),
    ((222, 96, 128), (255, 244, 246), (120, 30, 70)),
    ((140, 176, 60), (252, 252, 236), (40, 96, 50)),
)
"""Body, label and accent of an article, before its hue and value wander."""


@dataclass(frozen=True)
class Look:
    """What all facings of one article share."""

    category_id: int
    width_share: float
    height_share: float
    body: Color
    label: Color
    accent: Color
    brand: str
    motif: int


class Brush:
    """Draws on a patch in shares of its width and height."""

    def __init__(self, width: int, height: int) -> None:
        self.patch = Image.new("RGBA", (width, height), (0, 0, 0, 0))
        self._draw = ImageDraw.Draw(self.patch)
        self._scale = np.array([width - 1, height - 1])

    def _points(self, *shares: float) -> list[tuple[float, float]]:
        return [(float(x), float(y)) for x, y in np.reshape(shares, (-1, 2)) * self._scale]

    def rectangle(self, x0: float, y0: float, x1: float, y1: float, color: Color, round_share: float = 0.0) -> None:
        """Fill a rectangle whose corners are rounded by a share of its width."""
        radius = round_share * (x1 - x0) * float(self._scale[0])
        self._draw.rounded_rectangle(self._points(x0, y0, x1, y1), radius, fill=color)

    def ellipse(self, x0: float, y0: float, x1: float, y1: float, color: Color) -> None:
        """Fill the ellipse inside a rectangle."""
        self._draw.ellipse(self._points(x0, y0, x1, y1), fill=color)

    def polygon(self, color: Color, *shares: float) -> None:
        """Fill a polygon given as x, y, x, y, ..."""
        self._draw.polygon(self._points(*shares), fill=color)

    def text(self, x: float, y: float, width_share: float, text: str, color: Color) -> None:
        """Write centred on (x, y), as wide as ``width_share`` allows."""
        size = max(4.0, width_share * float(self._scale[0]) / (0.66 * len(text)))
        [at] = self._points(x, y)
        self._draw.text(at, text, fill=color, font=ImageFont.load_default(size), anchor="mm")

    def motif(self, kind: int, x: float, y: float, radius: float, color: Color) -> None:
        """Draw a logo: a disc, a diamond, a leaf or a ring, ``radius`` in shares of the width."""
        tall = radius * float(self._scale[0] / self._scale[1])
        if kind == 0:
            self.ellipse(x - radius, y - tall, x + radius, y + tall, color)
        elif kind == 1:
            self.polygon(color, x, y - tall, x + radius, y, x, y + tall, x - radius, y)
        elif kind == 2:
            self.ellipse(x - radius, y - tall * 0.5, x + radius, y + tall * 0.5, color)
            self.ellipse(x - radius * 0.5, y - tall, x + radius * 0.5, y + tall, color)
        else:
            for share in (-0.66, 0.0, 0.66):
                self.rectangle(x - radius, y + tall * (share - 0.2), x + radius, y + tall * (share + 0.2), color)


def _draw_bottle(brush: Brush, look: Look) -> None:
    brush.rectangle(0.34, 0.0, 0.66, 0.08, look.accent, 0.15)
    brush.rectangle(0.38, 0.06, 0.62, 0.3, look.body)
    brush.polygon(look.body, 0.38, 0.2, 0.62, 0.2, 0.8, 0.27, 0.96, 0.37, 0.96, 0.5, 0.04, 0.5, 0.04, 0.37, 0.2, 0.27)
    brush.rectangle(0.02, 0.34, 0.98, 1.0, look.body, 0.14)
    brush.rectangle(0.02, 0.48, 0.98, 0.84, look.label)
    brush.rectangle(0.02, 0.8, 0.98, 0.84, look.accent)
    brush.motif(look.motif, 0.5, 0.59, 0.2, look.accent)
    brush.text(0.5, 0.73, 0.86, look.brand, look.body)


def _draw_can(brush: Brush, look: Look) -> None:
    metal = (196, 200, 204)
    brush.rectangle(0.06, 0.0, 0.94, 0.2, metal, 0.08)
    brush.rectangle(0.06, 0.8, 0.94, 1.0, metal, 0.12)
    brush.rectangle(0.0, 0.06, 1.0, 0.95, look.body, 0.06)
    brush.polygon(look.label, 0.0, 0.3, 1.0, 0.18, 1.0, 0.62, 0.0, 0.74)
    brush.polygon(look.accent, 0.0, 0.74, 1.0, 0.62, 1.0, 0.67, 0.0, 0.79)
    brush.motif(look.motif, 0.5, 0.36, 0.15, look.accent)
    brush.text(0.5, 0.54, 0.8, look.brand, look.body)
    brush.ellipse(0.1, 0.0, 0.9, 0.06, (226, 228, 230))


def _draw_box(brush: Brush, look: Look) -> None:
    brush.polygon(_shade(look.body, 1.15), 0.0, 0.06, 0.1, 0.0, 1.0, 0.0, 0.9, 0.06)
    brush.polygon(_shade(look.body, 0.6), 0.9, 0.06, 1.0, 0.0, 1.0, 0.94, 0.9, 1.0)
    brush.rectangle(0.0, 0.06, 0.9, 1.0, look.body)
    brush.rectangle(0.0, 0.14, 0.9, 0.4, look.label)
    brush.text(0.45, 0.27, 0.8, look.brand, look.body)
    brush.motif(look.motif, 0.45, 0.63, 0.24, look.accent)
    brush.rectangle(0.06, 0.88, 0.5, 0.94, look.label)


def _draw_bag(brush: Brush, look: Look) -> None:
    zigzag = [(index / 12, 0.0 if index % 2 else 0.03) for index in range(13)]
    outline = [(0.04 + 0.92 * x, y) for x, y in zigzag] + [(0.9, 0.1), (0.98, 0.3), (1.0, 0.6), (0.93, 0.9)]
    outline += [(0.04 + 0.92 * x, 1.0 - y) for x, y in reversed(zigzag)]
    outline += [(0.07, 0.9), (0.0, 0.6), (0.02, 0.3), (0.1, 0.1)]
    brush.polygon(look.body, *(share for point in outline for share in point))
    brush.rectangle(0.06, 0.04, 0.94, 0.09, look.accent)
    brush.rectangle(0.08, 0.91, 0.92, 0.95, look.accent)
    brush.ellipse(0.12, 0.2, 0.88, 0.55, look.label)
    brush.text(0.5, 0.375, 0.62, look.brand, look.body)
    brush.motif(look.motif, 0.5, 0.71, 0.17, look.accent)


_DRAWERS: dict[int, Callable[[Brush, Look], None]] = {2: _draw_bottle, 3: _draw_can, 5: _draw_box, 8: _draw_bag}


def _shade(color: Color, factor: float) -> Color:
    red, green, blue = (min(255, round(channel * factor)) for channel in color)
    return red, green, blue


def _wander(color: Color, rng: np.random.Generator) -> Color:
    hue, saturation, value = colorsys.rgb_to_hsv(*(channel / 255 for channel in color))
    factors = rng.uniform(0.8, 1.1, 2)
    hsv = ((hue + rng.normal(0, 0.025)) % 1.0, min(1.0, saturation * factors[0]), min(1.0, value * factors[1]))
    red, green, blue = (round(255 * channel) for channel in colorsys.hsv_to_rgb(*hsv))
    return red, green, blue


def pick_look(rng: np.random.Generator) -> Look:
    """Invent an article: its kind, its size, its colours."""
    category_id = int(rng.choice(list(CATEGORIES)))
    body, label, accent = (_wander(color, rng) for color in _PALETTES[rng.integers(len(_PALETTES))])
    width_share, height_share = rng.uniform(*_WIDTH_SHARES[category_id]), rng.uniform(*_HEIGHT_SHARES[category_id])
    brand = str(rng.choice(_BRANDS))
    return Look(category_id, width_share, height_share, body, label, accent, brand, int(rng.integers(4)))


def _relief(category_id: int, width: int, height: int) -> NDArray[np.float64]:
    """Give the brightness of a surface, (height, width): round things have a highlight and dark edges."""
    x, y = np.linspace(-1, 1, width)[None], np.linspace(-1, 1, height)[:, None]
    if category_id in (2, 3):
        roundness = np.sqrt(1 - 0.95 * x**2)
        return np.asarray(0.5 + 0.5 * roundness + 0.5 * np.exp(-(((x + 0.42) / 0.13) ** 2)) + 0 * y)
    if category_id == 5:
        return np.asarray(1.04 - 0.08 * y + 0 * x)
    creases = 0.07 * np.sin(9 * x + 4 * y) * np.abs(y) ** 2
    gloss = 0.25 * np.exp(-(((x + 0.45) / 0.2) ** 2 + y**2))
    return np.asarray(0.7 + 0.38 * np.cos(1.3 * x) * np.cos(1.1 * y) + gloss + creases)


def draw_product(look: Look, height: int, tilt_deg: float, brightness: float) -> NDArray[np.uint8]:
    """Draw a product as a patch ``height`` px tall before it is tilted: (h, w, 4) uint8 RGBA."""
    width = max(4, round(height * look.width_share))
    oversize = 4 if height < 120 else 2
    brush = Brush(width * oversize, height * oversize)
    _DRAWERS[look.category_id](brush, look)
    drawn = np.asarray(brush.patch).astype(np.float64)
    drawn[..., :3] *= brightness * _relief(look.category_id, drawn.shape[1], drawn.shape[0])[..., None]
    large = Image.fromarray(drawn.clip(0, 255).astype(np.uint8))
    if tilt_deg:
        large = large.rotate(tilt_deg, Image.Resampling.BICUBIC, expand=True)
    small = large.resize((max(1, large.width // oversize), max(1, large.height // oversize)), Image.Resampling.BOX)
    return np.asarray(small)


def draw_price_label(height: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw a paper label with a price and a barcode, ``height`` px tall: (h, w, 4) uint8 RGBA."""
    paper = (250, 214, 40) if rng.random() < 0.3 else (244, 244, 238)
    brush = Brush(height * 7, height * 4)
    brush.rectangle(0.0, 0.0, 1.0, 1.0, paper, 0.04)
    brush.text(0.36, 0.4, 0.6, f"{rng.integers(1, 10)}.{rng.integers(10)}9", (190, 30, 30))
    for index in range(9):
        brush.rectangle(0.72 + 0.025 * index, 0.2, 0.732 + 0.025 * index, 0.62, (40, 40, 40))
    brush.rectangle(0.08, 0.76, 0.9, 0.86, (110, 110, 110))
    return np.asarray(brush.patch.resize((max(2, height * 7 // 4), height), Image.Resampling.BOX))
