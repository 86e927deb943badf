"""What an object store's answers mean: its failures as this package names them, and answers that are not its own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    InvalidPathError,
    PermissionDeniedError,
    UnauthenticatedError,
)

from maskrcnn.errors import (
    AccessError,
    ExistsError,
    IntegrityError,
    NoBucketError,
    NotFoundError,
    StorageError,
    StorageTimeout,
    UnavailableError,
)
from maskrcnn.storage.base import EXISTS, short_reason

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>|\(code: (\w+)\)")
"""Of an answer, or, as the client says it, of one object in an answer to a deletion, which has status 200."""
_TIMEOUTS = ("kind: Timeout", "TimedOut", "timed out")
_DENIED = {301, 307, 308, 400, 401, 403, 407}
"""S3 answers 400, and redirects, for credentials and regions that are wrong."""
_WORTH_A_RETRY = {408, 409, 425, 429}
"""Slow, at the same time as another, too early, too often."""
_CODES_WORTH_A_RETRY = {
    *("RequestTimeout", "IncompleteBody", "BadDigest", "InternalError", "SlowDown", "OperationAborted"),
    *("ConditionalRequestConflict", "XAmzContentSHA256Mismatch"),
}
_NOT_OFFERED = 501
_REDIRECT = "redirect without LOCATION"

_REMEDIES = {
    "RequestTimeTooSkewed": "this machine's clock is wrong; set it (NTP), then run the same command again",
    "RequestExpired": "this machine's clock is wrong; set it (NTP), then run the same command again",
    "ExpiredToken": "the credentials have expired; renew them, then run the same command again",
    "InvalidAccessKeyId": "the store does not know these credentials; see AWS_ACCESS_KEY_ID or the role",
    "SignatureDoesNotMatch": "the store does not take these credentials; see AWS_SECRET_ACCESS_KEY or the role",
    "AccessDenied": "these credentials may not do that; see the bucket's and the role's policies",
    "PermanentRedirect": "the bucket is in another region; set AWS_REGION",
    "AuthorizationHeaderMalformed": "the bucket is in another region; set AWS_REGION",
}


class NotOfferedError(StorageError):
    """The store has no such operation."""


@contextmanager
def named_errors(uri: str) -> Iterator[None]:
    """Raise the client's errors as this package's.

    Raises:
        ExistsError: a create-only put met an object.
        NoBucketError, NotFoundError, AccessError, StorageTimeout, UnavailableError: as the store answers.
    """
    try:
        yield
    except FileNotFoundError as error:
        if _code(error) == "NoSuchBucket":
            raise NoBucketError(uri, "no such bucket") from error
        raise NotFoundError(uri, "no such object or bucket") from error
    except AlreadyExistsError as error:
        if _status(error) == 409:  # another put of the same key is on its way, and may fail yet
            raise UnavailableError(uri, _reason(error)) from error
        raise ExistsError(uri, EXISTS) from error
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise AccessError(uri, _reason(error)) from error
    except InvalidPathError as error:
        rule = "a key with an empty, '.' or '..' path segment cannot be read; rename it or name a narrower prefix"
        raise NotFoundError(uri, f"{rule}: {short_reason(error)}") from error
    except (BaseError, OSError) as error:
        raise _named(uri, error) from error


def _named(uri: str, error: Exception) -> StorageError:
    text, code, status = str(error), _code(error), _status(error)
    if code == "NoSuchBucket":
        return NoBucketError(uri, "no such bucket")
    if code == "AccessDenied":
        return AccessError(uri, _reason(error))
    if _REDIRECT in text:
        return AccessError(uri, f"{_REMEDIES['PermanentRedirect']}: {short_reason(error)}")
    if status is None:
        is_timeout = any(sign in text for sign in _TIMEOUTS)
        return (StorageTimeout if is_timeout else UnavailableError)(uri, short_reason(error))
    if status == _NOT_OFFERED:
        return NotOfferedError(uri, _reason(error))
    if status >= 500 or status in _WORTH_A_RETRY or code in _CODES_WORTH_A_RETRY:
        return UnavailableError(uri, _reason(error))
    return (AccessError if status in _DENIED else StorageError)(uri, _reason(error))


def check_is_stores_own(uri: str, etag: str | None) -> None:
    """Refuse an answer without an ETag: some proxies, and at times stores themselves, send an error page with a 200.

    Raises:
        UnavailableError: it has none.
    """
    if not etag:
        raise UnavailableError(uri, "the answer has no ETag: it is an error page, not the object")


def check_length(uri: str, body: bytes, size: int, source: str) -> None:
    """Refuse a body of another length than it should have, as the source says.

    Raises:
        IntegrityError: it is shorter or longer.
    """
    if len(body) != size:
        raise IntegrityError(uri, f"the body has {len(body)} bytes, {source} says {size}; it starts with {body[:20]!r}")


def _status(error: Exception) -> int | None:
    match = _STATUS.search(str(error))
    return int(match[1]) if match else None


def _code(error: Exception) -> str:
    match = _CODE.search(str(error))
    return match[1] or match[2] if match else ""


def _reason(error: Exception) -> str:
    """Say what the store said, and what to do where its code is known."""
    code, status = _code(error), _status(error)
    if not code:
        return short_reason(error)
    answer = f"{code} ({status})" if status else code
    return f"{_REMEDIES[code]}: {answer}" if code in _REMEDIES else f"the store says {answer}"
