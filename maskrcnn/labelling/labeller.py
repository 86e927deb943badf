"""What one actor does with a part: read ahead, decode in threads, batch by shape, predict. Knows no Ray and no table.

Reads, decodes and predictions each have threads of their own, bounded in bytes, and meet in one queue; nothing waits
for a whole part, and a bad image is a result like any other. Two parts may be in hand at once: the older one goes
first, the younger one fills the gaps.
"""

from __future__ import annotations

import itertools
import logging
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from maskrcnn import storage
from maskrcnn.errors import BrokenDeviceError, ErrorKind, NoBucketError, OutageError, StorageError
from maskrcnn.images import BadImage, read_header
from maskrcnn.labelling.results import ImageResult, ListedImage
from maskrcnn.labelling.stages import ByteBudget, StageSeconds, Turns
from maskrcnn.model.decode import DecodedImage, decode_image, decoded_bytes
from maskrcnn.model.predictor import AnyPredictor
from maskrcnn.model.shapes import bucket_shape
from maskrcnn.storage import ReadAnswer

logger = logging.getLogger(__name__)

PARTS_IN_HAND = 2
"""Of one actor: while a part is put, the next one is predicted already."""
MAX_ENCODED_BYTES = 128 << 20
"""Of each part in hand."""
MAX_DECODED_BYTES = 512 << 20
_POLL_S = 0.02


@dataclass(frozen=True)
class _Loaded:
    """An image on its way to the network, or the reason why it will not get there."""

    place: int
    image: DecodedImage | None = None
    failure: ImageResult | StorageError | None = None
    """Of the image; or of its whole store, which is no result."""
    num_bytes: int = 0


@dataclass(frozen=True)
class _Predicted:
    """What became of a batch."""

    batch: list[_Loaded]
    outcomes: Sequence[ImageResult]


_Events = queue.SimpleQueue[_Loaded | _Predicted | Exception]
"""An exception ends the part."""


class Labeller:
    """A predictor with everything that feeds it; several threads may label parts with it at once.

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
        self._num_decoders = num_decoders
        self._with_masks = with_masks
        self._max_pixels = max_pixels
        self._preprocess = predictor.preprocess
        self._decode_slots = threading.BoundedSemaphore(num_decoders)
        self._decoded = ByteBudget(MAX_DECODED_BYTES)
        # A second batch keeps a GPU busy while the host waits for the first one's boxes and compresses its masks.
        self._turns = Turns(2 if predictor.is_on_gpu else 1)
        self._part_numbers = itertools.count()
        self._broken: BaseException | None = None

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

        Raises:
            NoBucketError, OutageError: the store of some images is away, which no row may say of them.
            BrokenDeviceError: the process must go. Whatever else is raised, this labeller is of no use afterwards.
        """
        self._raise_if_broken()
        seconds = seconds if seconds is not None else StageSeconds()
        number = next(self._part_numbers)
        results: list[ImageResult | None] = [None] * len(images)
        events: _Events = queue.SimpleQueue()
        buckets: dict[tuple[int, int], list[_Loaded]] = {}
        num_done = num_predicting = 0
        num_loading = len(images)
        outage: StorageError | None = None

        def finish(batch: list[_Loaded], outcomes: Sequence[ImageResult]) -> None:
            nonlocal num_done
            for one, outcome in zip(batch, outcomes, strict=True):
                self._decoded.release(one.num_bytes)
                results[one.place] = outcome
                on_result(outcome)
            num_done += len(batch)

        def predict_largest_bucket() -> None:
            nonlocal num_predicting
            num_predicting += 1
            batch = buckets.pop(max(buckets, key=lambda shape: len(buckets[shape])))
            predictors.submit(self._predict, batch, number, events, seconds)

        with (
            ThreadPoolExecutor(1, "reader") as reader,
            ThreadPoolExecutor(self._num_decoders, "decode") as decoders,
            # What torch was told of threads holds for the thread that told it.
            ThreadPoolExecutor(
                self._turns.num_places, "predict", torch.set_num_threads, (torch.get_num_threads(),)
            ) as predictors,
            self._abandoned_on_error(),
        ):
            reader.submit(self._read_all, images, decoders, events, seconds)
            while num_done < len(images):
                # Nobody else will fill a bucket: because nothing is on its way, or because buckets hold the memory.
                while buckets and (num_loading == 0 or (self._decoded.is_starved and num_predicting == 0)):
                    predict_largest_bucket()
                try:
                    event = events.get(timeout=_POLL_S)
                except queue.Empty:
                    self._raise_if_broken()
                    continue
                match event:
                    case Exception():
                        raise event
                    case _Predicted():
                        num_predicting -= 1
                        finish(event.batch, event.outcomes)
                    case _Loaded(failure=ImageResult() as failure):
                        num_loading -= 1
                        finish([event], [failure])
                    case _Loaded(failure=StorageError() as outage):
                        num_loading -= 1
                        num_done += 1
                    case _Loaded():
                        num_loading -= 1
                        assert event.image is not None
                        bucket = buckets.setdefault(bucket_shape(*event.image.size, self._preprocess), [])
                        bucket.append(event)
                        if len(bucket) == self._batch_size:
                            predict_largest_bucket()
        if outage is not None:
            raise outage
        return [result for result in results if result is not None]

    @contextmanager
    def _abandoned_on_error(self) -> Iterator[None]:
        """Let no thread wait for bytes that an ended part holds: neither this part's nor the other one's."""
        try:
            yield
        except BaseException as error:
            self._broken = error
            self._decoded.abandon()
            raise

    def _raise_if_broken(self) -> None:
        if isinstance(self._broken, BrokenDeviceError):
            raise BrokenDeviceError(self._broken.reason)
        if self._broken is not None:
            raise BrokenDeviceError(f"another part ended with {type(self._broken).__name__}: {self._broken}")

    def _read_all(
        self,
        images: Sequence[ListedImage],
        decoders: ThreadPoolExecutor,
        events: _Events,
        seconds: StageSeconds,
    ) -> None:
        """Read the images, many at once, and hand each body to a decoder as soon as one is free."""
        try:
            for answer in storage.read_objects(images, max_bytes=MAX_ENCODED_BYTES):
                seconds.add("read", answer.seconds)
                self._decode_slots.acquire()
                decoders.submit(self._load, answer, images[answer.place].uri, events, seconds)
                if self._broken is not None:
                    return
        except Exception as error:
            events.put(error)

    def _load(self, answer: ReadAnswer, uri: str, events: _Events, seconds: StageSeconds) -> None:
        """Decode one image, in a thread; whatever happens, something is put into the queue."""
        try:
            events.put(self._decode(answer, seconds))
        except Exception as error:
            if _is_broken_device(error):
                events.put(BrokenDeviceError(str(error)))
                return
            logger.exception("reading %s", uri)
            events.put(_Loaded(answer.place, failure=_failed("corrupt", f"{type(error).__name__}: {error}")))
        finally:
            self._decode_slots.release()

    def _decode(self, answer: ReadAnswer, seconds: StageSeconds) -> _Loaded:
        place, body = answer.place, answer.outcome
        if isinstance(body, OutageError | NoBucketError):
            return _Loaded(place, failure=body)
        if isinstance(body, StorageError):
            return _Loaded(place, failure=_failed(body.kind, body.reason))
        if isinstance(body, Exception):
            raise body
        header = read_header(body, apply_exif=self._preprocess.apply_exif, max_pixels=self._max_pixels)
        if isinstance(header, BadImage):
            return _Loaded(place, failure=_failed(header.kind, header.reason))
        whole_above_px = self._predictor.whole_above_px
        num_bytes = decoded_bytes(header, self._preprocess, whole_above_px)
        self._decoded.acquire(num_bytes)
        try:
            with seconds.timed("decode"):
                image = decode_image(body, self._preprocess, whole_above_px=whole_above_px, max_pixels=self._max_pixels)
            if isinstance(image, DecodedImage):
                return _Loaded(place, image=self._pinned(image), num_bytes=num_bytes)
        except BaseException:
            self._decoded.release(num_bytes)
            raise
        self._decoded.release(num_bytes)
        return _Loaded(place, failure=ImageResult(header.width, header.height, None, image.kind, image.reason))

    def _pinned(self, image: DecodedImage) -> DecodedImage:
        """Put an image where a GPU copies it from fastest, if there is room."""
        if not self._predictor.is_on_gpu:
            return image
        try:
            return image.pinned()
        except RuntimeError as error:
            if _is_broken_device(error):
                raise
            return image

    def _predict(
        self,
        batch: list[_Loaded],
        number: int,
        events: _Events,
        seconds: StageSeconds,
    ) -> None:
        """Predict a batch, in a thread, when it is this part's turn."""
        try:
            with self._turns.take(number), seconds.timed("predict"):
                outcomes = self._predict_or_split(batch)
            events.put(_Predicted(batch, outcomes))
        except Exception as error:
            events.put(BrokenDeviceError(str(error)) if _is_broken_device(error) else error)

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
    text = str(error)
    is_short_of_memory = "out of memory" in text or "ALLOC_FAILED" in text
    return ("CUDA error" in text and not is_short_of_memory) or "device-side assert" in text
