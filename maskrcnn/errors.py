"""Every error this package raises on purpose.

    MaskrcnnError
    ├── InputError              what the user gave is wrong: exit code 2
    │   ├── AnnotationError     a COCO file, an annotation, a segmentation, an RLE
    │   │   └── JsonError       a file that is no JSON
    │   │       └── CutOffError one that ends too early
    │   ├── BundleError         a model bundle or weights
    │   ├── OutputError         an output that cannot take this job's results
    │   └── ClusterError        too few resources to run
    ├── BrokenDeviceError       a GPU that needs a new process
    ├── NonFiniteError          training gave NaN or infinity
    ├── TrainingFailedError     workers were lost too often
    └── StorageError            a read or a write that failed
        ├── NotFoundError
        │   └── NoBucketError   a whole bucket that is not there
        ├── ExistsError         something is there, and is not replaced
        ├── AccessError         denied, read-only, not signed in
        ├── IntegrityError      the bytes are not the ones that were listed
        ├── StorageTimeout      transient
        └── UnavailableError    transient: throttled, refused, reset, no network
            └── OutageError     a whole store that stays away

Ray carries exceptions between processes by pickle, so every class passes its fields by position to
``Exception.__init__`` and builds its text in ``__str__``.

``page`` is the page of the documentation that says more of a class of errors.
"""

from __future__ import annotations

from typing import ClassVar, Literal, get_args

ErrorKind = Literal[
    "not_found", "corrupt", "too_large", "unsupported", "integrity", "timeout", "unavailable", "worker_crash"
]
"""Why an image has no detections, as the predictions table names it."""

ERROR_KINDS: tuple[ErrorKind, ...] = get_args(ErrorKind)

TRANSIENT_KINDS: tuple[ErrorKind, ...] = ("timeout", "unavailable")
"""Kinds that the next run tries again by itself."""


class MaskrcnnError(Exception):
    """Base of every error this package raises on purpose."""

    page: ClassVar[str] = ""


class InputError(MaskrcnnError):
    """A value from outside that cannot be used.

    Args:
        thing: what is wrong, as the user knows it: a flag, a field, a file.
        rule: what must hold, starting with a verb: "must be in [0, 1], got 1.5".
        place: the file or URI where it stands; empty for the command line.
        remedy: what to do, where that is not plain from the rule.
    """

    def __init__(self, thing: str, rule: str, place: str = "", remedy: str = "") -> None:
        super().__init__(thing, rule, place, remedy)
        self.thing, self.rule, self.place, self.remedy = thing, rule, place, remedy

    def __str__(self) -> str:
        text = f"{self.thing} {self.rule}"
        if self.place:
            text += f", in {self.place}"
        if self.remedy:
            text += f"; {self.remedy}"
        return text


class AnnotationError(InputError):
    """A COCO document, annotation or segmentation that breaks the format."""

    page = "docs/OWN-DATA.md"


class JsonError(AnnotationError):
    """A file that is no JSON."""


class CutOffError(JsonError):
    """A JSON file that ends too early."""


class BundleError(InputError):
    """A model bundle or weights file that cannot be used."""

    page = "docs/CHOOSING.md"


class OutputError(InputError):
    """An output folder that cannot take this job's results."""

    page = "docs/FAQ.md"


class ClusterError(InputError):
    """A cluster with too few resources to run the job."""

    page = "docs/CLUSTER.md"


class BrokenDeviceError(MaskrcnnError):
    """A GPU on which nothing works any more in this process; a new process may find it sound.

    Args:
        reason: what the device said.
    """

    page = "docs/CLUSTER.md"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"nothing works any more on this process's device: {self.reason}"


class NonFiniteError(MaskrcnnError):
    """A training that had to skip too many steps, since losses or gradients were not finite.

    Args:
        skipped: for each such step its number, its losses, and its images with their annotations.
    """

    page = "docs/TUNING.md"

    def __init__(self, skipped: tuple[str, ...]) -> None:
        super().__init__(skipped)
        self.skipped = skipped

    def __str__(self) -> str:
        return (
            f"{len(self.skipped)} steps must give finite losses and gradients, and did not: {'; '.join(self.skipped)}; "
            "lower --learning-rate, or look at the annotations of these images"
        )


class TrainingFailedError(MaskrcnnError):
    """A training whose workers were lost more often than --max-failures allows.

    Args:
        reasons: what each lost worker said.
    """

    page = "docs/CLUSTER.md"

    def __init__(self, reasons: str) -> None:
        super().__init__(reasons)
        self.reasons = reasons

    def __str__(self) -> str:
        rule = "workers must not be lost more often than --max-failures allows"
        return f"{rule}: {self.reasons}; the same command with --resume goes on"


class StorageError(MaskrcnnError):
    """A read or a write that failed.

    Args:
        uri: the object or folder.
        reason: what the store said.
    """

    kind: ErrorKind = "unavailable"

    def __init__(self, uri: str, reason: str) -> None:
        super().__init__(uri, reason)
        self.uri, self.reason = uri, reason

    def __str__(self) -> str:
        return f"{self.uri}: {self.reason}"


class NotFoundError(StorageError):
    """Nothing is stored under that URI."""

    kind: ErrorKind = "not_found"


class NoBucketError(NotFoundError):
    """There is no such bucket: no object's own fault."""


class ExistsError(StorageError):
    """Something is stored under that URI already, and is not replaced."""


class AccessError(StorageError):
    """The store refused: permission denied, read-only, or not signed in."""

    page = "docs/CLUSTER.md"


class IntegrityError(StorageError):
    """The bytes that came are not the ones that were listed."""

    kind: ErrorKind = "integrity"


class StorageTimeout(StorageError):
    """The store did not answer in time."""

    kind: ErrorKind = "timeout"


class UnavailableError(StorageError):
    """The store could not be reached, or said that it is overloaded."""

    page = "docs/RELIABILITY.md"


class OutageError(UnavailableError):
    """A store that stayed away for longer than it is waited for: no object's own fault."""
