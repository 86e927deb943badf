"""No secret survives wherever it stands, twice is once, and names of files stay."""

from __future__ import annotations

import os
import re
from unittest import mock
from urllib.parse import quote

from hypothesis import assume, given
from hypothesis import strategies as st

from maskrcnn.redaction import MARK, has_credentials, redact

KEY_ID = "ASIAIOSFODNN7EXAMPLE"
BASE64 = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/", min_size=20, max_size=60)
ANYTHING = st.text(max_size=40)
CLEAN = st.text(st.characters(exclude_characters=MARK), max_size=40)
FOLDERS = ("s3://bucket/", "gs://bucket/", "/data/", "http://host:80/", "abfs://c@a.dfs.core.windows.net/")
FILE_NAMES = st.text("abcXYZ019 ?#&=+%-_.,;@:~()[]/äß", max_size=40)

FILE_NAMES_WITHOUT_QUERY = st.text("abcXYZ019 +%-_.,~()[]/äß", max_size=40)

TEMPLATES = st.sampled_from(
    [
        "https://b.s3.eu-central-1.amazonaws.com/a b.jpg?X-Amz-Date=1&X-Amz-Signature={}&x=1",
        "https://storage.googleapis.com/b/a?X-Goog-Signature={}",
        "https://acc.blob.core.windows.net/c/a?se=1&sig={}",
        "https://host/?access_token={}",
        "s3://key:{}@bucket/a.jpg",
        "Bearer {}",
        "X-Amz-Security-Token: {}",
        "<SecretAccessKey>{}</SecretAccessKey>",
        '"aws_secret_access_key": "{}"',
    ]
)


@given(ANYTHING, ANYTHING, TEMPLATES, BASE64)
def test_a_secret_never_survives(before: str, after: str, template: str, secret: str) -> None:
    assume(secret not in f"{before} {after}")
    text = f"{before} {template.format(quote(secret, safe='') if '?' in template else secret)} {after}"
    cleaned = redact(text)
    assert secret not in cleaned
    assert quote(secret, safe="") not in cleaned
    assert redact(cleaned) == cleaned


@given(ANYTHING, ANYTHING)
def test_an_access_key_never_survives(before: str, after: str) -> None:
    assert KEY_ID not in redact(f"{before}-{KEY_ID}/{after}")


@given(CLEAN, CLEAN, BASE64)
def test_a_secret_of_the_environment_never_survives(before: str, after: str, secret: str) -> None:
    with mock.patch.dict(os.environ, {"AWS_SECRET_ACCESS_KEY": secret}):
        cleaned = redact(before + secret + after)
        assert secret not in cleaned
        assert redact(cleaned) == cleaned


@given(ANYTHING)
def test_twice_is_once(text: str) -> None:
    assert redact(redact(text)) == redact(text)


@given(st.sampled_from(FOLDERS), FILE_NAMES)
def test_names_of_files_stay(folder: str, name: str) -> None:
    assert redact(folder + name) == folder + name
    assert not has_credentials(folder + name)


HIVE_KEYS = st.sampled_from(
    ["date", "session_token", "security-token", "account_key", "Secret_Key", "privateKey", "token", "signature", "sig"]
)
HIVE_FOLDERS = st.builds("{}={}".format, HIVE_KEYS, st.text("abcXYZ0189-_. ", min_size=1, max_size=30))
ASIAN_FOLDERS = st.builds("{}{}".format, st.sampled_from(["ASIA", "AKIA", "EURASIA", "ASIAPACIFIC"]), st.integers(0))


@given(st.sampled_from([*FOLDERS, ""]), st.lists(HIVE_FOLDERS | ASIAN_FOLDERS | FILE_NAMES_WITHOUT_QUERY, min_size=1))
def test_folders_named_key_and_value_are_no_credentials(root: str, folders: list[str]) -> None:
    assume(not any(re.search(r"(?<![A-Z0-9])A[KS]IA[A-Z0-9]{16}(?![A-Z0-9])", folder) for folder in folders))
    assert not has_credentials(root + "/".join(folders) + "/a.jpg")
