"""Tensors from outside, by name: read without unpickling, and refused where a network could not use them."""

from __future__ import annotations

from collections.abc import Mapping

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from maskrcnn.errors import BundleError


def parse_safetensors(body: bytes, place: str) -> dict[str, Tensor]:
    """Read tensors out of a safetensors file.

    Raises:
        BundleError: when it is not one, or is cut off.
    """
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load(body)
    except (SafetensorError, ValueError, KeyError) as error:
        raise BundleError("weights", f"must be a whole safetensors file: {error}", place) from None
    return tensors


def check_fit(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], place: str) -> None:
    """Refuse tensors that are not exactly the expected ones.

    Raises:
        BundleError: naming the first that is missing, unknown or of another shape.
    """
    for name in expected:
        if name not in found:
            raise BundleError(f"tensor {name}", "is missing: these are another network's weights", place)
        wanted, got = tuple(expected[name].shape), tuple(found[name].shape)
        if wanted != got:
            raise BundleError(f"tensor {name}", f"must have the shape {wanted}, got {got}", place)
    for name in found:
        if name not in expected:
            raise BundleError(f"tensor {name}", "has no place in the network: these are another network's", place)


def check_finite(tensors: Mapping[str, Tensor], place: str) -> None:
    """Refuse NaN and infinity: a network of such weights finds nothing in any image, as if there were nothing.

    Raises:
        BundleError: naming the first tensor that holds one.
    """
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        # The extremes are NaN where a value is, and the only ones that need to be looked at.
        extremes = torch.stack(tensor.to(torch.float32).aminmax())
        if not extremes.isfinite().all():
            remedy = "take the weights of an earlier step, or train again with a lower --learning-rate"
            raise BundleError(f"tensor {name}", "must be finite, and holds NaN or infinity", place, remedy)
