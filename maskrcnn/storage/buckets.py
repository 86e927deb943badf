"""Opening a bucket: deadlines, endpoint and credentials."""

from __future__ import annotations

import importlib.util
import logging
import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import obstore

logger = logging.getLogger(__name__)

CONNECT_DEADLINE_S = 5


@dataclass(frozen=True)
class Deadlines:
    """How long one request may take.

    Args:
        idle_s: without a byte; None: as long as the whole.
        whole_s: from connecting to the body's end.
    """

    idle_s: int | None
    whole_s: int


def connect(root: str, deadlines: Deadlines, *, num_retries: int = 0) -> Any:
    """Open a bucket; credentials, region and endpoint come from the environment, or from boto3 where it is there.

    Args:
        root: of the bucket.
        deadlines: of one request.
        num_retries: by the client itself; 0 where `maskrcnn.storage.retries` tries again, since two layers multiply.
    """
    options: dict[str, Any] = {
        "client_options": {"timeout": f"{deadlines.whole_s}s", "connect_timeout": f"{CONNECT_DEADLINE_S}s"},
        # The client's requests keep their first signature, which no store takes for much longer.
        "retry_config": {
            "max_retries": num_retries,
            "retry_timeout": timedelta(minutes=5),
        },
    }
    if deadlines.idle_s is not None:
        options["client_options"]["read_timeout"] = f"{deadlines.idle_s}s"
    if root.startswith("s3://"):
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        if endpoint:
            options["endpoint"] = endpoint
        if "AWS_ACCESS_KEY_ID" not in os.environ and "AWS_PROFILE" in os.environ:
            _use_profile(options)
    # Plain HTTP only where the endpoint itself says so.
    options["client_options"]["allow_http"] = str(options.get("endpoint", "")).startswith("http://")
    return obstore.store.from_url(root, **options)


def _use_profile(options: dict[str, Any]) -> None:
    if importlib.util.find_spec("boto3") is None:
        logger.warning("AWS_PROFILE is set, but profiles need boto3; install it or set AWS_ACCESS_KEY_ID")
        return
    from obstore.auth.boto3 import Boto3CredentialProvider

    options["credential_provider"] = Boto3CredentialProvider()
