"""How large the promises' tests are: small for every day, soak for a night (``MASKRCNN_SOAK=1``)."""

from __future__ import annotations

import os
from typing import TypeVar

IS_SOAK = os.environ.get("MASKRCNN_SOAK") == "1"

_T = TypeVar("_T")


def scale(small: _T, soak: _T) -> _T:
    """Choose the number of the form that runs."""
    return soak if IS_SOAK else small
