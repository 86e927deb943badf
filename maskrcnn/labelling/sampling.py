"""Which of the listed images are to be labelled: those of a sample are told by a hash of their URIs alone.

So the sample is the same every night, for every bundle and in whatever order images are listed, and a larger one of the
same seed holds every smaller one.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_HASH_BYTES = 8
_FLOAT_BITS = 53


def draw_by_uri(uris: pa.ChunkedArray, share: float, seed: int) -> NDArray[np.bool_]:
    """Mark the images of a sample.

    Args:
        uris: (N,) strings without nulls.
        share: of all images, in (0, 1].
        seed: samples of different seeds have nothing to do with each other.

    Returns:
        (N,) bool.
    """
    key = str(seed).encode()
    hashes = b"".join(
        hashlib.blake2b(uri, digest_size=_HASH_BYTES, key=key).digest()
        for chunk in uris.chunks
        for uri in chunk.cast(pa.binary()).to_pylist()
    )
    # As many bits as floats hold exactly, so that a share of 1 is all.
    numbers = np.frombuffer(hashes, ">u8") >> (8 * _HASH_BYTES - _FLOAT_BITS)
    marks: NDArray[np.bool_] = numbers < share * 2**_FLOAT_BITS
    return marks


class Choice:
    """Leaves out of what is listed what is no image, or not in the sample.

    Args:
        leave_out_uri: a folder whose files are no images; None: there is none.
        sample: the share of the images that is wanted, None for all.
        seed: of the sample.
    """

    def __init__(self, leave_out_uri: str | None, sample: float | None, seed: int) -> None:
        self._prefix = None if leave_out_uri is None else leave_out_uri + "/"
        self._sample, self._seed = sample, seed
        self.num_outside_sample = 0

    def __call__(self, listed: pa.Table) -> pa.Table:
        """Give the rows that are chosen, and count those outside the sample.

        Args:
            listed: rows with a column image_uri (string).
        """
        if self._prefix is not None:
            listed = listed.filter(pc.invert(pc.starts_with(listed["image_uri"], self._prefix)))
        if self._sample is None:
            return listed
        drawn = listed.filter(pa.array(draw_by_uri(listed["image_uri"], self._sample, self._seed)))
        self.num_outside_sample += len(listed) - len(drawn)
        return drawn
