"""Text without its secrets: signed queries, passwords in URLs, access keys, tokens, and what the environment hides.

Whatever leaves the process as text passes through here: logs, messages, tracebacks, rows, records.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

MARK = "…"
MIN_SECRET_CHARS = 8
"""Of a value of the environment: shorter ones would blot out harmless words."""

_TO_SPACE = r"[^\s'\"<>]*"
_SIGNING_FIELDS = r"X-(?:Amz|Goog|Oss|Obs)-(?:Signature|Credential|Security-Token)|AWSAccessKeyId|GoogleAccessId"
_SECRET_FIELDS = r"(?:secret|account|private)_?(?:access_?)?key|(?:session|security)_?token|SharedAccessSignature"

_QUERY = re.compile(rf"\?{_TO_SPACE}")
_SIGNATURE_IN_QUERY = re.compile(
    rf"(?:{_SIGNING_FIELDS})(?:=|%3D)"
    r"|(?:[?&;]|%3F|%26)(?:sig|signature|\w*token|api_?key|\w*password|\w*secret)(?:=|%3D)[^&\s]{8}",
    re.IGNORECASE,
)
# As headers, in JSON, in a store's XML answers, in connection strings.
_FIELD = (
    rf"(?P<name>(?:{_SIGNING_FIELDS}|{_SECRET_FIELDS})['\"]?\s?(?:[=:>]|%3D)\s?['\"]?|\bSignature=)"
    r"[^\s&,;'\"<>]{8,}"
)
# Folders may be named `key=value`, whatever the key: what stands in a path is no field.
_PATH_END = r"[?#&;]|%3F|%26"
_PATH = rf"(?P<path>(?:(?<=://)|(?<![^\s'\"])/)(?:(?!{_PATH_END})[^\s,'\"<>])+)"
_PATH_OR_FIELD = re.compile(rf"{_PATH}|{_FIELD}", re.IGNORECASE)
_BEHIND_A_PATH = re.compile(rf"(?:{_PATH_END}).*", re.IGNORECASE | re.DOTALL)
_ANY_FIELD = re.compile(_FIELD, re.IGNORECASE)
# What follows the colon is no port; an unescaped slash may stand in the secret.
# Bounded, so that a hostile text costs no more than its length.
_USER_AND_PASSWORD = re.compile(r"(?<=://)[^\s/@:\['\"<>]{0,256}:(?!\d{0,5}(?:[/?#\s'\"<>]|$))[^\s'\"<>]{0,1024}@")
_ACCESS_KEY = re.compile(r"(?<![A-Z0-9])A[KS]IA[A-Z0-9]{16}(?![A-Z0-9])")
_AUTHORIZATION = re.compile(r"\b(bearer\s+|authorization\W{1,4}basic\s+)[\w.~+/=-]{16,}", re.IGNORECASE)
_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)", re.DOTALL)

_SECRET_NAME = re.compile(r"KEY|SECRET|TOKEN|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|CONNECTION_STRING|(?:^|_)SAS(?:$|_)")
_NAME_OF_SOMETHING_BESIDE = re.compile(r"_(?:FILE|PATH|DIR|FOLDER|NAME|PREFIX|URL|URI|ARN|MODE|TYPE|TTL|LIMIT|SIZE)$")


def redact(text: str) -> str:
    """Replace every secret in a text by a mark; text without secrets stays as it is.

    Taken out are query strings that sign a URL, `user:password@`, AWS access keys, bearer tokens, private keys, and
    the values of this process's environment whose names say that they are secret.
    """
    secrets = _environment_secrets()
    return redact_patterns(_pattern_of(secrets).sub(MARK, text) if secrets else text)


def redact_values(value: Any) -> Any:
    """Redact every text inside of what is to become JSON; keys, and what is no text, stay."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {key: redact_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact_values(item) for item in value]
    return value


def has_credentials(uri: str) -> bool:
    """Say whether a URI or path carries a secret in itself: `user:password@`, an access key, or a query that signs it.

    Its folders may be named as they like: `session_token=20240101`, or `the bearer of good news`.
    """
    if _redact_places_in_uris(uri) != uri:
        return True
    rest = _BEHIND_A_PATH.search(uri)
    return rest is not None and _ANY_FIELD.search(rest[0]) is not None


def has_secrets(text: str) -> bool:
    """Say whether a text of any kind holds what looks like a secret."""
    return redact_patterns(text) != text


def redact_patterns(text: str) -> str:
    """Replace what looks like a secret, whatever the environment holds."""
    text = _redact_places_in_uris(text)
    if _ANY_FIELD.search(text):
        text = _PATH_OR_FIELD.sub(_without_value, text)
    text = _AUTHORIZATION.sub(rf"\1{MARK}", text)
    return _PRIVATE_KEY.sub(MARK, text)


def _redact_places_in_uris(text: str) -> str:
    if "?" in text:
        text = _QUERY.sub(_without_signature, text)
    if "://" in text:
        text = _USER_AND_PASSWORD.sub(f"{MARK}@", text)
    return _ACCESS_KEY.sub(MARK, text)


def _without_value(found: re.Match[str]) -> str:
    return found["path"] or f"{found['name']}{MARK}"


def _without_signature(query: re.Match[str]) -> str:
    return f"?{MARK}" if _SIGNATURE_IN_QUERY.search(query[0]) else query[0]


def _environment_secrets() -> tuple[str, ...]:
    """Give the secret values of the environment as it is now: a program may sign in after its start."""
    return tuple(value for name, value in os.environ.items() if _is_secret_name(name) and _is_secret_value(value))


@functools.lru_cache(maxsize=4096)
def _is_secret_name(name: str) -> bool:
    name = name.upper()
    return bool(_SECRET_NAME.search(name)) and not _NAME_OF_SOMETHING_BESIDE.search(name)


@functools.lru_cache(maxsize=256)
def _is_secret_value(value: str) -> bool:
    return len(value) >= MIN_SECRET_CHARS and not os.path.exists(value)


@functools.lru_cache(maxsize=16)
def _pattern_of(secrets: tuple[str, ...]) -> re.Pattern[str]:
    """Find any of these as it is, in a URL, or in JSON; the longest first, since one may begin another."""
    spellings = set(secrets)
    for value in secrets:
        spellings |= {quote(value), quote(value, safe=""), json.dumps(value)[1:-1]}
    return re.compile("|".join(re.escape(spelling) for spelling in sorted(spellings, key=len, reverse=True)))
