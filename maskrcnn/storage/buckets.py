"""Opening a bucket: deadlines, retries, endpoint and credentials."""

from __future__ import annotations

import importlib.util
import logging
import os
from datetime import timedelta
from typing import Any

import obstore

logger = logging.getLogger(__name__)

MAX_RETRIES = 5


def connect(root: str, deadline_s: int) -> Any:
    """Open a bucket; credentials, region and endpoint come from the environment, or from boto3 where it is there."""
    options: dict[str, Any] = {
        "client_options": {"timeout": f"{deadline_s}s", "connect_timeout": "5s"},
        "retry_config": {"max_retries": MAX_RETRIES, "retry_timeout": timedelta(seconds=deadline_s)},
    }
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
