"""Secrets are taken out of text; text without secrets stays as it is."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from maskrcnn.redaction import has_credentials, has_secrets, redact, redact_values

S3_QUERY = (
    "?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20261122%2Fus-east-1%2Fs3%2Faws4_request"
    "&X-Amz-Date=20261122T000000Z&X-Amz-Expires=3600&X-Amz-SignedHeaders=host&X-Amz-Signature=fe5f80f77d5fa3be"
)


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        (f"GET https://b.s3.amazonaws.com/a.jpg{S3_QUERY} failed", "GET https://b.s3.amazonaws.com/a.jpg?… failed"),
        ("https://b/a.jpg?x-amz-security-token=FwoG&x=1", "https://b/a.jpg?…"),
        ("https://b/a.jpg?AWSAccessKeyId=x&Signature=y&Expires=1", "https://b/a.jpg?…"),
        ("https://storage.googleapis.com/b/a?X-Goog-Signature=ab12", "https://storage.googleapis.com/b/a?…"),
        (
            "https://acc.blob.core.windows.net/c/a?sv=2024&sp=r&sig=aB%2Fcdefgh%3D",
            "https://acc.blob.core.windows.net/c/a?…",
        ),
        ("https://host/a?next=https%3A%2F%2Fb%3FX-Amz-Signature%3Dab12", "https://host/a?…"),
        ("s3://user:pass@bucket/a.jpg", "s3://…@bucket/a.jpg"),
        ("s3://AKIAX:se/cr+et@bucket/a.jpg", "s3://…@bucket/a.jpg"),
        ("ftp://:only-a-password@host", "ftp://…@host"),
        ("the key ASIAIOSFODNN7EXAMPLE is wrong", "the key … is wrong"),
        ("Authorization: Bearer eyJhbGciOiJIUzI1NiJ9.x", "Authorization: Bearer …"),
        ("authorization: Basic dXNlcjpwYXNzd29yZA==", "authorization: Basic …"),
        ("{'X-Amz-Security-Token': 'FwoGZXIvYXdzEA'}", "{'X-Amz-Security-Token': '…'}"),
        ("<SecretAccessKey>wJalrXUtnFEMI</SecretAccessKey>", "<SecretAccessKey>…</SecretAccessKey>"),
        ('{"aws_secret_access_key": "wJalrXUtnFEMI"}', '{"aws_secret_access_key": "…"}'),
        ("AccountName=a;AccountKey=Zm9vYmFyYmF6;EndpointSuffix=x", "AccountName=a;AccountKey=…;EndpointSuffix=x"),
        ("x -----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY----- y", "x … y"),
    ],
)
def test_secrets_are_taken_out(text: str, redacted: str) -> None:
    assert redact(text) == redacted
    assert redact(redacted) == redacted
    assert has_secrets(text)


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/what?.jpg",
        "s3://bucket/a?b=c&d=e#f.jpg",
        "s3://bucket/a?sig=1.jpg",
        "s3://bucket/12:30@home/image@2x.png",
        "http://host:8080/a@b.jpg",
        "http://[2001:db8::1]:80/a@b.jpg",
        "abfs://container@account.dfs.core.windows.net/a.jpg",
        "/home/anna/photos of AKIA/a b.jpg",
        "the bearer of bad news: signature does not match",
        "s3://photos/KASIASTOREPHOTOS20240101/a.jpg",
        "s3://photos/ASIAPACIFICREGIONSTORE01/a.jpg",
        "s3://photos/session_token=20240101xx/secret_key=abcdefghij/a.jpg",
        "/photos/session_token=20240101xx/a.jpg",
        "--images holds no images, or does not exist, in s3://bucket/photos; see --help",
        "",
    ],
)
def test_harmless_text_stays(text: str) -> None:
    assert redact(text) == text
    assert not has_credentials(text)
    assert not has_secrets(text)


@pytest.mark.parametrize(
    "uri",
    [
        "https://b/a.jpg?x=1&session_token=0123abcd",
        "https://b/a.jpg?X-Amz-Signature=0123abcd",
        "https://b/a b/%68.jpg%3FX-Amz-Signature%3D0123abcd",
        "https://b/a.jpg#secret_access_key=0123abcd",
        "AccountName=a;AccountKey=0123abcd",
        "s3://key:0123abcd@bucket/a.jpg",
        "s3://AKIAIOSFODNN7EXAMPLE@bucket/a.jpg",
        "s3://bucket/AKIAIOSFODNN7EXAMPLE/a.jpg",
    ],
)
def test_uris_that_carry_a_secret_are_known_and_redacted(uri: str) -> None:
    assert has_credentials(uri)
    assert "0123abcd" not in redact(uri)
    assert "AKIA" not in redact(uri)


@pytest.mark.parametrize(
    "path",
    [
        "session_token=20240101xx/a.jpg",
        "s3://photos/many photos/session_token=20240101xx/a.jpg",
        "s3://photos/the bearer of-very-good-news-2024/a.jpg",
        "s3://photos/Signature=20240101/security-token: 12345678/a.jpg",
    ],
)
def test_folders_may_be_named_as_they_like(path: str) -> None:
    assert not has_credentials(path)


def test_secrets_of_the_environment_are_taken_out_as_it_is_now(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "/wJalr+UtnFEMI/K7MDENG")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a-token-of-ray")
    monkeypatch.setenv("DB_PASSWORD", 'with "quotes" in it')
    told = 'x=/wJalr+UtnFEMI/K7MDENG %2FwJalr%2BUtnFEMI%2FK7MDENG a-token-of-ray {"p": "with \\"quotes\\" in it"}'
    assert redact(told) == 'x=… … … {"p": "…"}'
    monkeypatch.setenv("RAY_AUTH_TOKEN", "another-token")
    assert redact("a-token-of-ray another-token") == "a-token-of-ray …"


def test_what_the_environment_does_not_hide_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    values = {
        "AWS_SECRET_ACCESS_KEY": "short",
        "AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/secrets/token",
        "MY_KEY": str(tmp_path),
        "S3_KEY_PREFIX": "photos/2026",
        "HOME_TOWN": "Springfield",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    for value in values.values():
        assert redact(f"at {value}") == f"at {value}"


def test_values_of_json_are_redacted_inside() -> None:
    given = {"uri": "s3://u:p4ss@b", "n": 1, "list": [("s3://u:p4ss@b", None)], "inner": {"ok": True}}
    assert redact_values(given) == {"uri": "s3://…@b", "n": 1, "list": [["s3://…@b", None]], "inner": {"ok": True}}


@pytest.mark.parametrize(
    "text",
    [
        "?" * 100_000,
        "://a:b" * 20_000,
        "x?sig=" * 20_000,
        "bearer " * 20_000,
        "?" + "token=" * 20_000,
        "://" * 30_000,
        " /a" * 30_000,
    ],
)
def test_hostile_text_costs_no_more_than_its_length(text: str) -> None:
    begin = time.monotonic()
    redact(text)
    has_credentials(text)
    assert time.monotonic() - begin < 2
