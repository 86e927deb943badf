"""The scene: boards, products side by side and behind each other, price labels, light. Owns what is visible.

Pieces are placed from the back to the front; what is in front hides what is behind, and a mask holds what is left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from maskrcnn.errors import InputError
from maskrcnn.synthetic.products import draw_price_label, draw_product, pick_look

_MIN_VISIBLE_SHARE = 0.4  # less of a product says too little of what it is


@dataclass(frozen=True, eq=False)
class ShelfInstance:
    """One product and what can be seen of it."""

    category_id: int
    visible: NDArray[np.bool_]
    """(h, w) bool, of the part of the image that the product lies on: hundreds of whole frames fill the memory."""
    left: int
    top: int
    """Where that part begins, px."""
    size: tuple[int, int]
    """(H, W) of the image, px."""

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Draw what can be seen over the whole image: (H, W) bool."""
        whole = np.zeros(self.size, bool)
        height, width = self.visible.shape
        whole[self.top : self.top + height, self.left : self.left + width] = self.visible
        return whole


@dataclass(frozen=True)
class ShelfImage:
    """A drawn photo of a shelf: ``image`` (H, W, 3) uint8 RGB, and its products from the back to the front."""

    image: NDArray[np.uint8]
    instances: tuple[ShelfInstance, ...]


@dataclass(frozen=True)
class _Piece:
    """Something placed in the scene: an RGBA patch (h, w, 4) uint8 and the corner where it goes, px."""

    patch: NDArray[np.uint8]
    left: int
    top: int
    category_id: int | None
    """None for a price label, which hides products and is none."""


@dataclass(frozen=True, eq=False)
class _Sight:
    """What can be seen of a piece: (h, w) bool, and the corner in the scene where that begins, px."""

    visible: NDArray[np.bool_]
    left: int
    top: int


@dataclass(frozen=True)
class _Board:
    """A shelf board: products stand on ``top``, their clear height above it; the lip hangs below, px."""

    top: int
    clear_height: int
    lip_height: int


def draw_shelf(
    seed: int | Sequence[int], *, width: int = 160, height: int = 160, num_boards: int = 2, stock: float = 1.0
) -> ShelfImage:
    """Draw one photo of a shelf with the exact visible mask of every product.

    Args:
        seed: the same seed and sizes give the same image.
        width: of the image, px.
        height: of the image, px.
        num_boards: shelves above each other; more boards are more and smaller products.
        stock: the share of the products that stand there, in [0, 1]; the others are sold out.

    Returns:
        The image and its products. A product of which less than two fifths can be seen is not placed at all.

    Raises:
        InputError: when a shelf would be less than 40 px high, too little to tell a can from a box.
    """
    if height < 40 * num_boards or width < 40:
        raise InputError("a drawn shelf", f"must be 40 px or more wide and high, got {width} x {height} / {num_boards}")
    rng = np.random.default_rng(seed)
    pitch = height / num_boards
    lip_height = max(3, round(pitch * rng.uniform(0.1, 0.14)))
    boards = [
        _Board(round(pitch * (index + 1)) - lip_height, round(pitch * 0.94) - lip_height, lip_height)
        for index in range(num_boards)
    ]
    stocked = [piece for board in boards for piece in _stock(board, width, rng)]
    if stock < 1:
        is_there = np.random.default_rng([0, *np.atleast_1d(seed).tolist()]).random(len(stocked)) < stock
        stocked = [one for one, stays in zip(stocked, is_there, strict=True) if stays or one.category_id is None]
    pieces, sights = _visible(stocked, width, height)
    scene = _paint_background(boards, width, height, rng)
    for piece in pieces:
        _paint(scene, piece)
    instances = [
        ShelfInstance(piece.category_id, sight.visible, sight.left, sight.top, (height, width))
        for piece, sight in zip(pieces, sights, strict=True)
        if piece.category_id is not None
    ]
    return ShelfImage(_light(scene, boards, rng), tuple(instances))


def _stock(board: _Board, width: int, rng: np.random.Generator) -> Iterator[_Piece]:
    """Place products on a board from left to right, the back row first, then labels on its lip."""
    back_row: list[_Piece] = []
    front_row: list[_Piece] = []
    left = -rng.uniform(0, 0.3) * board.clear_height
    while left < width:
        look = pick_look(rng)
        product_height = round(board.clear_height * look.height_share)
        for _ in range(int(rng.integers(1, 4))):
            tilt_deg = float(rng.normal(0, 4)) if rng.random() < 0.2 else 0.0
            patch = draw_product(look, product_height, tilt_deg, rng.uniform(0.92, 1.05))
            product_width = patch.shape[1]
            front_row.append(_Piece(patch, round(left), board.top - patch.shape[0] + 1, look.category_id))
            if rng.random() < 0.2:
                behind = draw_product(look, round(product_height * 0.97), 0.0, rng.uniform(0.6, 0.75))
                shift = rng.choice([-1, 1]) * rng.uniform(0.35, 0.6) * product_width
                lift = round(board.clear_height * rng.uniform(0.02, 0.05))
                top = board.top - behind.shape[0] - lift
                back_row.append(_Piece(behind, round(left + shift), top, look.category_id))
            # Facings touch, or overlap by a hair, as often as not.
            left += product_width + (0 if rng.random() < 0.5 else rng.uniform(-0.06, 0.08) * product_width)
            if left >= width:
                break
        left += (
            rng.choice([0.0, rng.uniform(0.02, 0.12), rng.uniform(0.3, 0.6)], p=[0.3, 0.5, 0.2]) * board.clear_height
        )
    yield from back_row
    order = rng.permutation(len(front_row))
    yield from (front_row[index] for index in order)
    yield from _label(board, width, rng)


def _label(board: _Board, width: int, rng: np.random.Generator) -> Iterator[_Piece]:
    """Place price labels on the lip; a few are flags that stand in front of a product's foot."""
    left = rng.uniform(0, 0.5) * board.clear_height
    while left < width:
        is_flag = rng.random() < 0.15
        patch = draw_price_label(max(3, round(board.lip_height * (1.5 if is_flag else 0.85))), rng)
        top = board.top + 1 - (round(patch.shape[0] * 0.6) if is_flag else 0)
        yield _Piece(patch, round(left), top, None)
        left += patch.shape[1] + rng.uniform(0.2, 1.0) * board.clear_height


def _visible(pieces: Sequence[_Piece], width: int, height: int) -> tuple[list[_Piece], list[_Sight]]:
    """Leave out products that are hardly seen, and give what can be seen of every piece that stays."""
    covered = np.zeros((height, width), bool)
    kept: list[tuple[_Piece, _Sight]] = []
    for piece in reversed(pieces):
        scene_at, patch_at = _overlap(piece, width, height)
        whole = piece.patch[..., 3] >= 128
        silhouette = whole[patch_at]
        visible = silhouette & ~covered[scene_at]
        if piece.category_id is not None and visible.sum() < _MIN_VISIBLE_SHARE * whole.sum():
            continue
        covered[scene_at] |= silhouette
        kept.append((piece, _Sight(visible, scene_at[1].start, scene_at[0].start)))
    kept.reverse()
    return [piece for piece, _ in kept], [sight for _, sight in kept]


def _overlap(piece: _Piece, width: int, height: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Give the part of the scene that a piece lies on, and the part of its patch that lies on the scene."""
    patch_height, patch_width = piece.patch.shape[:2]
    x0, x1 = np.clip([piece.left, piece.left + patch_width], 0, width).tolist()
    y0, y1 = np.clip([piece.top, piece.top + patch_height], 0, height).tolist()
    patch_at = (slice(y0 - piece.top, y1 - piece.top), slice(x0 - piece.left, x1 - piece.left))
    return (slice(y0, y1), slice(x0, x1)), patch_at


def _paint(scene: NDArray[np.float32], piece: _Piece) -> None:
    """Lay a piece over the scene (H, W, 3), with a soft shadow to its right."""
    height, width = scene.shape[:2]
    reach = max(1, piece.patch.shape[0] // 12)
    alpha = Image.fromarray(np.pad(piece.patch[..., 3], reach)).filter(ImageFilter.GaussianBlur(reach / 2))
    shadow = _Piece(np.asarray(alpha)[..., None], piece.left, piece.top - reach, None)
    scene_at, patch_at = _overlap(shadow, width, height)
    scene[scene_at] *= 1 - 0.45 * shadow.patch[patch_at].astype(np.float32) / 255
    scene_at, patch_at = _overlap(piece, width, height)
    cover = piece.patch[patch_at][..., 3:].astype(np.float32) / 255
    scene[scene_at] = scene[scene_at] * (1 - cover) + piece.patch[patch_at][..., :3] * cover


def _paint_background(
    boards: Sequence[_Board], width: int, height: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Paint the back wall, darker towards the top of each shelf, and the boards with their lips."""
    wall = rng.uniform(90, 235) + rng.uniform(-12, 12, 3)
    board_color = rng.uniform(140, 240) + rng.uniform(-10, 10, 3)
    scene = np.tile(wall.astype(np.float32), (height, width, 1))
    panel = max(8, round(width * rng.uniform(0.2, 0.5)))
    scene[:, ::panel] *= 0.82
    for board in boards:
        depth = np.linspace(0.6, 1.0, board.clear_height, dtype=np.float32)[:, None, None]
        scene[board.top - board.clear_height : board.top] *= depth
        scene[board.top - max(1, board.lip_height // 3) : board.top] = board_color * 0.7
        lip = np.linspace(1.1, 0.8, board.lip_height)[:, None, None]
        scene[board.top : board.top + board.lip_height] = board_color * lip
    return scene


def _light(scene: NDArray[np.float32], boards: Sequence[_Board], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Turn the painted scene into a photo: shade under boards, uneven and tinted light, blur, noise."""
    height, width = scene.shape[:2]
    x, y = np.linspace(-1, 1, width)[None, :, None], np.linspace(-1, 1, height)[:, None, None]
    slope_x, slope_y = rng.uniform(-0.14, 0.14, 2)
    lit = scene * (rng.uniform(0.85, 1.15) + slope_x * x + slope_y * y - 0.1 * (x**2 + y**2) / 2)
    for board in boards:
        above = board.top - board.clear_height
        reach = board.clear_height // 4
        lit[above : above + reach] *= np.linspace(0.68, 1, reach)[:, None, None]
    lit *= 1 + rng.uniform(-0.05, 0.05, 3)
    photo = Image.fromarray(lit.clip(0, 255).astype(np.uint8))
    photo = photo.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.5)))
    noisy = np.asarray(photo) + rng.normal(0, rng.uniform(1, 6), lit.shape)
    return np.asarray(noisy.clip(0, 255), np.uint8)
