"""The compressed string of COCO's run lengths, both ways.

A mask's pixels are read column by column; its run lengths alternate, background first. COCO writes each as one to six
printable bytes of five bits, most as the difference to an earlier run. Knows nothing of sizes, images or files.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from maskrcnn.errors import AnnotationError

MAX_MASK_PIXELS = 2**29 - 1
"""The largest mask: pycocotools sets aside six bytes a run, which hold 30 bits and a sign within them."""

_FIRST_BYTE, _LAST_BYTE = 48, 111
_BITS_PER_BYTE = 5
_MORE_FOLLOWS = 0x20
_MAX_BYTES_PER_RUN = 6

Counts = NDArray[np.int64]


def encode_counts_batch(counts: Counts, offsets: NDArray[np.int64]) -> list[bytes]:
    """Compress the runs of many masks at once, to the byte as pycocotools does.

    Args:
        counts: (total_runs,) int64, run lengths of all masks one after the other, background first in each.
        offsets: (N + 1,) int64, where each mask's runs begin, and the end of the last.

    Returns:
        N compressed strings.

    Source: pycocotools `maskApi.c`, `rleToString`.
    """
    # From the fourth run on, each is stored as the difference to the one two before: same colour, similar length.
    deltas = counts.astype(np.int64)
    deltas[2:] -= counts[:-2]
    heads = offsets[:-1, None] + np.arange(3)
    heads = heads[heads < offsets[1:, None]]
    deltas[heads] = counts[heads]

    is_longer = _needs_another_byte(deltas)
    first_bytes = _as_byte(deltas, is_longer)
    num_bytes = np.ones(len(deltas), np.int64)
    later_bytes = []
    runs, rest = np.flatnonzero(is_longer), deltas[is_longer]
    while len(runs):
        rest = rest >> _BITS_PER_BYTE
        is_longer = _needs_another_byte(rest)
        later_bytes.append((runs, _as_byte(rest, is_longer)))
        num_bytes[runs] += 1
        runs, rest = runs[is_longer], rest[is_longer]

    starts = np.concatenate([[0], np.cumsum(num_bytes)])
    written = np.empty(starts[-1], np.uint8)
    written[starts[:-1]] = first_bytes
    for index, (runs, codes) in enumerate(later_bytes, start=1):
        written[starts[runs] + index] = codes
    text = written.tobytes()
    return [text[start:end] for start, end in itertools.pairwise(starts[offsets].tolist())]


def encode_counts(counts: Sequence[int] | Counts) -> bytes:
    """Compress the run lengths of one mask, background first."""
    runs = np.asarray(counts, np.int64)
    return encode_counts_batch(runs, np.array([0, len(runs)]))[0]


def decode_counts(counts: bytes | str, *, thing: str = "segmentation", place: str = "") -> Counts:
    """Read the run lengths out of a compressed string.

    Args:
        counts: the compressed string.
        thing: what it belongs to, for the message, as in all functions here: "annotation 17 segmentation".
        place: the file it stands in, for the message.

    Returns:
        (num_runs,) int64, background first; every run is 0 or more.

    Raises:
        AnnotationError: bytes outside the alphabet, a truncated string, a negative or overflowing run.
    """
    runs = parse_counts(counts, thing=thing, place=place)
    if len(runs) and (runs.min() < 0 or runs.max() > MAX_MASK_PIXELS):
        at = int(((runs < 0) | (runs > MAX_MASK_PIXELS)).argmax())
        rule = f"must hold runs of 0 to {MAX_MASK_PIXELS} px, got {int(runs[at])} as run {at}"
        raise AnnotationError(f"{thing} counts", rule, place)
    return runs


def parse_counts(counts: bytes | str, *, thing: str = "segmentation", place: str = "") -> Counts:
    """Read the numbers out of a compressed string, whatever they are: runs may come out negative, or too long.

    Raises:
        AnnotationError: bytes outside the alphabet, or a truncated string.

    Source: pycocotools `maskApi.c`, `rleFrString`.
    """

    def refuse(rule: str) -> AnnotationError:
        return AnnotationError(f"{thing} counts", rule, place)

    try:
        text = counts.encode("ascii") if isinstance(counts, str) else bytes(counts)
    except UnicodeEncodeError:
        raise refuse("must be ASCII text") from None
    if not text:
        return np.zeros(0, np.int64)
    codes = np.frombuffer(text, np.uint8).astype(np.int64)
    is_foreign = (codes < _FIRST_BYTE) | (codes > _LAST_BYTE)
    if is_foreign.any():
        at = int(is_foreign.argmax())
        raise refuse(f"must hold bytes 48 to 111 only, got {int(codes[at])} at byte {at}")
    codes -= _FIRST_BYTE
    is_last = (codes & _MORE_FOLLOWS) == 0
    if not is_last[-1]:
        raise refuse("must end with a whole run, and is cut off")

    ends = np.flatnonzero(is_last)
    longest = int(np.diff(ends, prepend=-1).max())
    if longest > _MAX_BYTES_PER_RUN:
        raise refuse(f"must take at most {_MAX_BYTES_PER_RUN} bytes a run, got {longest}")
    runs = _read_deltas(codes, ends)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs


def decode_counts_batch(
    content: NDArray[np.uint8], offsets: NDArray[np.int64]
) -> tuple[Counts, NDArray[np.int64], NDArray[np.bool_]]:
    """Read the run lengths out of many compressed strings at once.

    Args:
        content: the strings' bytes, one after the other.
        offsets: (N + 1,) int64, where each string begins, and the end of the last.

    Returns:
        (total_runs,) int64, the run lengths of all masks one after the other; (N + 1,) where each mask's begin; and
        (N,) whether it could be read. One that could not has no runs here: `decode_counts` says what is wrong with it.
    """
    is_readable = _are_readable(content, offsets)
    lengths = np.where(is_readable, np.diff(offsets), 0)
    codes = content[np.repeat(is_readable, np.diff(offsets))] - _FIRST_BYTE
    ends = np.flatnonzero((codes & _MORE_FOLLOWS) == 0)
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1] + 1])[: len(ends)]
    runs = (codes[starts] & 0x1F).astype(np.int64)
    longer = np.flatnonzero(ends > starts)
    for place in range(1, _MAX_BYTES_PER_RUN):
        runs[longer] |= (codes[starts[longer] + place].astype(np.int64) & 0x1F) << (_BITS_PER_BYTE * place)
        longer = longer[ends[longer] > starts[longer] + place]
    runs -= ((codes[ends] & 0x10) != 0).astype(np.int64) << (_BITS_PER_BYTE * (ends - starts + 1))

    run_offsets = np.searchsorted(ends, np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]))
    num_runs = np.diff(run_offsets)
    places = np.arange(len(runs)) - np.repeat(run_offsets[:-1], num_runs)
    is_odd = places % 2 == 1
    for is_chosen, num_chosen in ((is_odd, num_runs // 2), (~is_odd & (places > 0), (num_runs - 1).clip(0) // 2)):
        sums = np.concatenate([np.zeros(1, np.int64), np.cumsum(runs[is_chosen])])
        before = sums[np.cumsum(num_chosen) - num_chosen]
        runs[is_chosen] = sums[1:] - np.repeat(before, num_chosen)

    is_impossible = (runs < 0) | (runs > MAX_MASK_PIXELS)
    if is_impossible.any():
        of_run = np.repeat(np.arange(len(num_runs)), num_runs)
        is_readable[of_run[is_impossible]] = False
        runs = runs[is_readable[of_run]]
        run_offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.where(is_readable, num_runs, 0))])
    return runs, run_offsets, is_readable


def _are_readable(content: NDArray[np.uint8], offsets: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Say which strings are in the alphabet, end with a whole run, and have no run of too many bytes."""
    is_readable = np.diff(offsets) > 0
    codes = content - _FIRST_BYTE  # what is below wraps, and is too large then
    ends = np.flatnonzero((codes & _MORE_FOLLOWS) == 0)
    is_readable[is_readable] = (codes[offsets[1:][is_readable] - 1] & _MORE_FOLLOWS) == 0
    is_too_long = np.diff(ends, prepend=-1) > _MAX_BYTES_PER_RUN
    foreign = np.flatnonzero(codes > _LAST_BYTE - _FIRST_BYTE)
    for broken in (foreign, ends[is_too_long]):
        is_readable[np.searchsorted(offsets, broken, side="right") - 1] = False
    return is_readable


def _read_deltas(codes: NDArray[np.int64], ends: NDArray[np.int64]) -> Counts:
    """Read the stored numbers out of bytes less `_FIRST_BYTE`, given where each number's last byte is."""
    if not len(ends):
        return np.zeros(0, np.int64)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    shifts = _BITS_PER_BYTE * (np.arange(len(codes)) - np.repeat(starts, lengths))
    deltas = np.add.reduceat((codes & 0x1F) << shifts, starts)
    deltas -= ((codes[ends] & 0x10) != 0).astype(np.int64) << (_BITS_PER_BYTE * lengths)
    return deltas


def without_empty_runs(runs: Counts) -> Counts:
    """Join what runs of 0 keep apart; only a first one, of a mask that begins with foreground, stays."""
    if not (runs[1:] == 0).any():
        return runs
    kept = np.flatnonzero(runs)
    colours = kept % 2
    begins = np.flatnonzero(np.diff(colours, prepend=-1))
    joined = np.add.reduceat(runs[kept], begins)
    return np.concatenate([[0], joined]) if colours[0] else joined


def _needs_another_byte(values: Counts) -> NDArray[np.bool_]:
    return (values < -16) | (values > 15)


def _as_byte(values: Counts, is_longer: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return ((values & 0x1F) + (is_longer * _MORE_FOLLOWS + _FIRST_BYTE)).astype(np.uint8)
