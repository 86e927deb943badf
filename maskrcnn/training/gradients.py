"""The gradients of all ranks, summed in a few large pieces while the backward pass is still running.

Every rank sends the same pieces in the same order in every step, whatever happens to it: one that runs out of memory in
the middle of its backward pass still sends the rest, so that nobody waits for it in vain, and a signal that goes with
the gradients tells all ranks that this step does not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

BUCKET_BYTES = 25 << 20


class GradientBuckets:
    """Holds every parameter's gradient as a view into a few flat tensors, and sums these over the ranks.

    Args:
        parameters: the trained ones, of one device and dtype; their ``grad`` is set here, and stays.
        group: the ranks; None for a single process.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], group: dist.ProcessGroup | None = None) -> None:
        self._group = group
        self._works: list[Any] = []
        self._is_armed = False
        self._num_sent = 0
        self.flats: list[Tensor] = []
        self._missing: list[int] = []
        self._sizes: list[int] = []
        bucket: list[nn.Parameter] = []
        # Gradients come about in the opposite order of the forward pass.
        for parameter in reversed(parameters):
            bucket.append(parameter)
            if sum(each.numel() * each.element_size() for each in bucket) >= BUCKET_BYTES:
                self._add_bucket(bucket)
                bucket = []
        if bucket:
            self._add_bucket(bucket)

    def _add_bucket(self, parameters: list[nn.Parameter]) -> None:
        flat = torch.zeros(sum(p.numel() for p in parameters), dtype=parameters[0].dtype, device=parameters[0].device)
        number, begin = len(self.flats), 0
        for parameter in parameters:
            # With the parameter's strides, so that a channels-last weight gets a channels-last gradient.
            parameter.grad = flat.as_strided(parameter.shape, parameter.stride(), begin)
            begin += parameter.numel()
            if self._group is not None:
                parameter.register_post_accumulate_grad_hook(self._note(number))  # type: ignore[no-untyped-call]
        self.flats.append(flat)
        self._sizes.append(len(parameters))

    def zero(self) -> None:
        """Begin a step."""
        for flat in self.flats:
            flat.zero_()
        self._is_armed, self._num_sent, self._works = False, 0, []
        self._missing = list(self._sizes)

    def arm(self) -> None:
        """Say that the next backward pass is the step's last: what is complete may be sent."""
        self._is_armed = True

    def finish(self, signals: Tensor) -> None:
        """Send what was not sent yet, and the signals, and wait: gradients and signals are then sums over the ranks.

        Args:
            signals: (S,) float32 on the gradients' device, summed in place.
        """
        if self._group is None:
            return
        while self._num_sent < len(self.flats):
            self._send(self.flats[self._num_sent])
            self._num_sent += 1
        self._send(signals)
        for work in self._works:
            work.wait()

    def _note(self, number: int) -> Any:
        def note(_: Tensor) -> None:
            if not self._is_armed:
                return
            self._missing[number] -= 1
            while self._num_sent < len(self.flats) and self._missing[self._num_sent] == 0:
                self._send(self.flats[self._num_sent])
                self._num_sent += 1

        return note

    def _send(self, flat: Tensor) -> None:
        self._works.append(dist.all_reduce(flat, group=self._group, async_op=True))

    def norm(self) -> Tensor:
        """Give the length of the whole gradient, ()."""
        norm: Tensor = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(flat) for flat in self.flats]))
        return norm

    def scale(self, factor: Tensor) -> None:
        """Multiply the whole gradient by a scalar tensor."""
        torch._foreach_mul_(self.flats, factor)
