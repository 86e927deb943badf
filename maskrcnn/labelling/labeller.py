"""What one actor does with a part: read ahead, decode in threads, batch by shape, predict. Knows no Ray and no table.

Reads and decodes run ahead of the network in threads, bounded in bytes; the network never waits for a whole part, and
a bad image is a result like any other.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from maskrcnn import storage
from maskrcnn.errors import ErrorKind, StorageError
from maskrcnn.images import BadImage, read_header
from maskrcnn.labelling.results import ImageResult
from maskrcnn.model.decode import DecodedImage, decode_image, decoded_bytes
from maskrcnn.model.predictor import AnyPredictor
from maskrcnn.model.shapes import bucket_shape

logger = logging.getLogger(__name__)

READS_IN_FLIGHT = 32
MAX_ENCODED_BYTES = 256 << 20
MAX_DECODED_BYTES = 512 << 20
_POLL_S = 0.02


@dataclass(frozen=True)
class ListedImage:
    """An image as it was planned."""

    uri: str
    etag: str
    size: int


@dataclass
class StageSeconds:
    """Where the time of a part went; reading and decoding are sums over threads."""

    read: float = 0.0
    decode: float = 0.0
    predict: float = 0.0
    put: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, stage: str, seconds: float) -> None:
        """Add to one stage, from any thread."""
        with self._lock:
            setattr(self, stage, getattr(self, stage) + seconds)


class ByteBudget:
    """Bounds the bytes that are held at once; an item larger than the whole budget goes through alone."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._held_bytes = 0
        self._num_waiting = 0
        self._changed = threading.Condition()

    @property
    def is_starved(self) -> bool:
        """Say whether somebody waits for bytes to be given back."""
        return self._num_waiting > 0

    def acquire(self, num_bytes: int) -> None:
        """Take bytes; blocks until there are enough."""
        with self._changed:
            self._num_waiting += 1
            while self._held_bytes and self._held_bytes + num_bytes > self._limit_bytes:
                self._changed.wait()
            self._num_waiting -= 1
            self._held_bytes += num_bytes

    def release(self, num_bytes: int) -> None:
        """Give bytes back."""
        with self._changed:
            self._held_bytes -= num_bytes
            self._changed.notify_all()


@dataclass(frozen=True)
class _Loaded:
    """An image on its way to the network, or the reason why it will not get there."""

    place: int
    image: DecodedImage | None = None
    failure: ImageResult | None = None
    num_bytes: int = 0


class Labeller:
    """A predictor with everything that feeds it.

    Args:
        predictor: the network and its thresholds.
        batch_size: images a forward.
        num_decoders: threads that decode at once.
        with_masks: whether masks are wanted.
        max_pixels: larger images are refused from their header.
    """

    def __init__(
        self, predictor: AnyPredictor, *, batch_size: int, num_decoders: int, with_masks: bool, max_pixels: int
    ) -> None:
        self._predictor = predictor
        self._batch_size = batch_size
        self._with_masks = with_masks
        self._max_pixels = max_pixels
        self._preprocess = predictor.preprocess
        self._decode_slots = threading.BoundedSemaphore(num_decoders)
        self._decoded = ByteBudget(MAX_DECODED_BYTES)

    def label(
        self,
        images: Sequence[ListedImage],
        seconds: StageSeconds | None = None,
        on_result: Callable[[ImageResult], None] = lambda _: None,
    ) -> list[ImageResult]:
        """Label images; the results come in the order of the images, whatever order they were done in.

        Args:
            images: what to read, and which version of it.
            seconds: where to add up the time of each stage.
            on_result: called once an image, from this thread.
        """
        seconds = seconds if seconds is not None else StageSeconds()
        results: list[ImageResult | None] = [None] * len(images)
        loaded: queue.SimpleQueue[_Loaded] = queue.SimpleQueue()
        buckets: dict[tuple[int, int], list[_Loaded]] = {}
        num_done = num_submitted = encoded_bytes = num_loading = 0

        def finish(batch: list[_Loaded], outcomes: Sequence[ImageResult]) -> None:
            nonlocal num_done
            for one, outcome in zip(batch, outcomes, strict=True):
                self._decoded.release(one.num_bytes)
                results[one.place] = outcome
                on_result(outcome)
            num_done += len(batch)

        with ThreadPoolExecutor(READS_IN_FLIGHT, thread_name_prefix="load") as pool:
            while num_done < len(images):
                while num_submitted < len(images) and (
                    num_loading == 0
                    or (
                        num_loading < READS_IN_FLIGHT
                        and encoded_bytes + images[num_submitted].size <= MAX_ENCODED_BYTES
                    )
                ):
                    pool.submit(self._load, num_submitted, images[num_submitted], loaded, seconds)
                    encoded_bytes += images[num_submitted].size
                    num_loading += 1
                    num_submitted += 1
                try:
                    one = loaded.get(timeout=_POLL_S) if num_loading else loaded.get_nowait()
                except queue.Empty:
                    # Nobody else will fill a bucket: because nothing is on its way, or because buckets hold the memory.
                    if buckets and (num_loading == 0 or self._decoded.is_starved):
                        batch = buckets.pop(max(buckets, key=lambda shape: len(buckets[shape])))
                        finish(batch, self._predict(batch, seconds))
                    continue
                num_loading -= 1
                encoded_bytes -= images[one.place].size
                if one.image is None:
                    assert one.failure is not None
                    finish([one], [one.failure])
                    continue
                shape = bucket_shape(*one.image.size, self._preprocess)
                bucket = buckets.setdefault(shape, [])
                bucket.append(one)
                if len(bucket) == self._batch_size:
                    finish(buckets[shape], self._predict(buckets.pop(shape), seconds))
        return [result for result in results if result is not None]

    def _load(self, place: int, listed: ListedImage, loaded: queue.SimpleQueue[_Loaded], seconds: StageSeconds) -> None:
        """Read and decode one image, in a thread; whatever happens, something is put into the queue."""
        try:
            loaded.put(self._read_and_decode(place, listed, seconds))
        except Exception as error:
            logger.exception("reading %s", listed.uri)
            loaded.put(_Loaded(place, failure=_failed("corrupt", f"{type(error).__name__}: {error}")))

    def _read_and_decode(self, place: int, listed: ListedImage, seconds: StageSeconds) -> _Loaded:
        begin = time.perf_counter()
        try:
            body = storage.read_object(listed.uri, listed.etag, listed.size)
        except StorageError as error:
            return _Loaded(place, failure=_failed(error.kind, error.reason))
        finally:
            seconds.add("read", time.perf_counter() - begin)
        with self._decode_slots:
            header = read_header(body, apply_exif=self._preprocess.apply_exif, max_pixels=self._max_pixels)
            if isinstance(header, BadImage):
                return _Loaded(place, failure=_failed(header.kind, header.reason))
            num_bytes = decoded_bytes(header, self._preprocess, self._predictor.whole_above_px)
            self._decoded.acquire(num_bytes)
            begin = time.perf_counter()
            image = decode_image(
                body,
                self._preprocess,
                whole_above_px=self._predictor.whole_above_px,
                max_pixels=self._max_pixels,
            )
            seconds.add("decode", time.perf_counter() - begin)
            if isinstance(image, BadImage):
                self._decoded.release(num_bytes)
                return _Loaded(place, failure=ImageResult(header.width, header.height, None, image.kind, image.reason))
        return _Loaded(place, image=image, num_bytes=num_bytes)

    def _predict(self, batch: list[_Loaded], seconds: StageSeconds) -> list[ImageResult]:
        begin = time.perf_counter()
        try:
            return self._predict_or_split(batch)
        finally:
            seconds.add("predict", time.perf_counter() - begin)

    def _predict_or_split(self, batch: list[_Loaded]) -> list[ImageResult]:
        """Predict; where the batch as a whole fails, one by one, so that only the guilty image pays."""
        images = [one.image for one in batch if one.image is not None]
        try:
            found = self._predictor(images, with_masks=self._with_masks)
        except Exception as error:
            if _is_broken_device(error):
                raise  # the process must go: nothing on this device works any more
            if len(batch) > 1:
                return [self._predict_or_split([one])[0] for one in batch]
            logger.exception("predicting")
            height, width = images[0].size
            return [ImageResult(width, height, None, "worker_crash", f"{type(error).__name__}: {error}")]
        return [ImageResult(width=one.size[1], height=one.size[0], detections=one) for one in found]


def _failed(kind: ErrorKind, message: str) -> ImageResult:
    return ImageResult(error_kind=kind, error_message=message)


def _is_broken_device(error: Exception) -> bool:
    return "CUDA error" in str(error) or "device-side assert" in str(error)
