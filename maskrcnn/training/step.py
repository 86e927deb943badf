"""One optimizer update: micro-batches forward and backward, gradients over all ranks, clip, check, update.

Knows nothing of loops, files or Ray. The host never waits for the device in here, but where heads have batch norms,
which must see filled slots only: what a step did is read afterwards, and whether its update may happen is decided on
the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from maskrcnn.config import PreprocessConfig
from maskrcnn.errors import ClusterError
from maskrcnn.model.inputs import build_input, send
from maskrcnn.training.gradients import GradientBuckets
from maskrcnn.training.losses import COUNT_NAMES, LOSS_NAMES, LossSums, compute_losses
from maskrcnn.training.optimizer import MovingAverage, build_optimizer
from maskrcnn.training.recipe import TrainConfig
from maskrcnn.training.samples import Sample
from maskrcnn.training.schedule import learning_rate_at
from maskrcnn.training.targets import Targets

_OUT_OF_MEMORY = len(LOSS_NAMES)
_NUM_SIGNALS = len(LOSS_NAMES) + 1


@dataclass(frozen=True)
class StepResult:
    """What one update did, over all ranks."""

    step: int
    losses: dict[str, float]
    """torchvision's five losses by name, means over the global batch."""
    grad_norm: float
    """Before it was clipped."""
    learning_rate: float
    nonfinite_places: tuple[int, ...]
    """Places in the global batch of the images whose losses are not finite."""
    is_out_of_memory: bool
    """Some rank's memory did not hold its micro-batch: nothing was learnt, nor is until ``Learner.halve``."""
    notices: tuple[float, ...]
    """The sums over the ranks of what each passed as ``notices``."""

    @property
    def loss(self) -> float:
        """The sum that was minimised."""
        return sum(self.losses.values())

    @property
    def is_finite(self) -> bool:
        """Say whether losses and gradient were finite; if not, the weights are as they were before."""
        return not self.nonfinite_places and abs(self.grad_norm) < float("inf")


class PendingStep:
    """A step that may still be running on the device."""

    def __init__(self, step: int, learning_rate: float, values: Tensor, num_places: int) -> None:
        self._step, self._learning_rate, self._num_places = step, learning_rate, num_places
        self._event: Any = None
        self._values = values
        if values.is_cuda:
            self._values = torch.empty(values.shape, pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record()

    def read(self) -> StepResult:
        """Wait for the step and say what it did."""
        if self._event is not None:
            self._event.synchronize()
        losses, rest = self._values[: len(LOSS_NAMES)].tolist(), self._values[len(LOSS_NAMES) :].tolist()
        out_of_memory, *rest = rest
        flags, notices, grad_norm = rest[: self._num_places], rest[self._num_places : -1], rest[-1]
        return StepResult(
            step=self._step,
            losses=dict(zip(LOSS_NAMES, losses, strict=True)),
            grad_norm=grad_norm,
            learning_rate=self._learning_rate,
            nonfinite_places=tuple(place for place, flag in enumerate(flags) if flag),
            is_out_of_memory=out_of_memory > 0,
            notices=tuple(notices),
        )


LossHook = Callable[[int, Sequence[Sample], Tensor], Tensor]
"""Called with the step, a micro-batch and its sums (5, B) before the backward pass; gives the sums to go on with."""


class Learner:
    """A network that learns: its optimizer, its gradients over all ranks, and its moving average.

    Args:
        network: from ``prepare_network``, on its device.
        preprocess: mean and std of the images.
        config: of the training.
        group: the ranks that learn together; None for a single process.
        on_losses: sees, and may change, every micro-batch's losses.
    """

    def __init__(
        self,
        network: Any,
        preprocess: PreprocessConfig,
        config: TrainConfig,
        *,
        group: dist.ProcessGroup | None = None,
        on_losses: LossHook | None = None,
    ) -> None:
        self.network, self.config = network, config
        self.optimizer = build_optimizer(network, config)
        self.average = MovingAverage(network, config.ema_decay) if config.ema_decay is not None else None
        self.micro_batch_size = config.micro_batch_size
        self._group, self._on_losses = group, on_losses
        self._device = next(network.parameters()).device
        self._buckets = GradientBuckets([p for p in network.parameters() if p.requires_grad], group)
        self._mean = torch.tensor(preprocess.mean, device=self._device)[:, None, None]
        self._std = torch.tensor(preprocess.std, device=self._device)[:, None, None]
        self._is_halted = torch.zeros((), dtype=torch.bool, device=self._device)

    def step(
        self,
        samples: Sequence[Sample],
        step: int,
        shape: tuple[int, int],
        *,
        first_place: int = 0,
        num_places: int | None = None,
        notices: Sequence[float] = (),
    ) -> PendingStep:
        """Update the weights once, together with all ranks.

        Nothing is updated when a loss or the gradient is not finite, or when a rank is out of memory.

        Args:
            samples: this rank's share of the global batch; may be empty.
            step: counted from 0.
            shape: (height, width) that every image of the global batch is padded to, px.
            first_place: of this share in the global batch.
            num_places: images in the global batch; None: this share is all of it.
            notices: numbers to sum over the ranks on the way; as many on each.
        """
        num_places = len(samples) if num_places is None else num_places
        self.network.train()
        for module in self.network.frozen_modules:
            module.eval()
        for convolution in self.network.folded:
            convolution.refresh()
        self._buckets.zero()
        signals = torch.zeros(_NUM_SIGNALS + num_places + len(notices), device=self._device)
        if notices:
            signals[-len(notices) :] = send(torch.tensor(list(notices)), self._device)
        is_out_of_memory = self._accumulate(samples, step, shape, signals[: _NUM_SIGNALS + num_places], first_place)
        if is_out_of_memory:
            # Only here, where the error and what its traceback kept are gone, can their memory be had again.
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
            signals[: len(LOSS_NAMES)] = 0
            signals[_OUT_OF_MEMORY] = 1
        self._buckets.finish(signals)
        learning_rate = learning_rate_at(step, self.config.schedule)
        grad_norm = self._update(signals, num_places, learning_rate)
        return PendingStep(step, learning_rate, torch.cat([signals, grad_norm[None]]), num_places)

    def halve(self, largest_share: int | None = None) -> None:
        """Go on with micro-batches of half the size, after a step that was out of memory.

        Args:
            largest_share: images of a step that a rank has at most; larger micro-batches are none.

        Raises:
            ClusterError: when micro-batches are single images already.
        """
        size = min(self.micro_batch_size, largest_share or self.micro_batch_size)
        if size == 1:
            rule = "must hold one image of a micro-batch, and does not"
            remedy = "use a smaller --min-size and --max-size, or a smaller --backbone"
            raise ClusterError(f"memory of {self._device}", rule, remedy=remedy)
        self.micro_batch_size = size // 2
        self._is_halted.zero_()

    def _accumulate(
        self, samples: Sequence[Sample], step: int, shape: tuple[int, int], signals: Tensor, first_place: int
    ) -> bool:
        """Add up the gradients of this rank's micro-batches; say whether its memory did not hold them."""
        size = self.micro_batch_size
        batches = [samples[begin : begin + size] for begin in range(0, len(samples), size)]
        counts = torch.zeros(len(COUNT_NAMES), device=self._device)
        forward: LossSums | None = None
        is_out_of_memory = False
        try:
            for batch in batches:
                # Denominators are of the global batch: with several micro-batches, all are counted before any is learnt
                # from, at the cost of a forward pass without the heads.
                is_only_counted = len(batches) > 1
                norms_kept = self._norms_kept() if is_only_counted else nullcontext()
                with torch.set_grad_enabled(not is_only_counted), norms_kept:
                    forward = self._forward(batch, shape, counts_only=is_only_counted)
                counts += forward.counts
        except torch.OutOfMemoryError:
            if self.config.norms_are_synced:
                raise  # the other ranks wait for this one's norms: only a new group can go on
            is_out_of_memory = True
        if self._group is not None:
            dist.all_reduce(counts, group=self._group)
        if is_out_of_memory:
            return True
        try:
            place = _NUM_SIGNALS + first_place
            for number, batch in enumerate(batches):
                if forward is None or len(batches) > 1:
                    forward = self._forward(batch, shape)
                if number == len(batches) - 1:
                    self._buckets.arm()
                self._backward(forward, batch, step, counts, signals, place)
                place += len(batch)
                forward = None
        except torch.OutOfMemoryError:
            return True
        return False

    @contextmanager
    def _norms_kept(self) -> Iterator[None]:
        """Keep batch norms' running means as they are: images that are only counted come again."""
        norms = [each for each in self.network.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 0.0
        try:
            yield
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum

    def _forward(self, batch: Sequence[Sample], shape: tuple[int, int], *, counts_only: bool = False) -> LossSums:
        pixels, sizes = [sample.image for sample in batch], [sample.size for sample in batch]
        images = build_input(pixels, sizes, shape, self._mean, self._std)
        images = images.contiguous(memory_format=torch.channels_last)
        targets = Targets.of(batch, self._device, self.config.seed)
        return compute_losses(self.network, images, targets, counts_only=counts_only)

    def _backward(
        self, forward: LossSums, batch: Sequence[Sample], step: int, counts: Tensor, signals: Tensor, place: int
    ) -> None:
        if self._on_losses is not None:
            forward = LossSums(self._on_losses(step, batch, forward.sums), forward.counts)
        losses = forward.total(counts)
        losses.sum().backward()  # type: ignore[no-untyped-call]
        signals[: len(LOSS_NAMES)] += losses.detach()
        signals[place : place + len(batch)] = (~forward.sums.detach().isfinite().all(0)).float()

    def _update(self, signals: Tensor, num_places: int, learning_rate: float) -> Tensor:
        """Clip and update, unless the signals or the gradient say otherwise; give the gradient's norm before."""
        norm = self._buckets.norm()
        flags = signals[_NUM_SIGNALS : _NUM_SIGNALS + num_places]
        self._is_halted |= signals[_OUT_OF_MEMORY] > 0
        must_skip = (~norm.isfinite() | (flags > 0).any() | self._is_halted).float()
        self._buckets.scale((self.config.max_grad_norm / (norm + 1e-6)).clamp(max=1))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        # The fused optimizers look at this on the device, as they do for torch's gradient scaler.
        self.optimizer.found_inf = must_skip  # type: ignore[attr-defined]
        self.optimizer.step()
        if self.average is not None:
            self.average.update(1 - must_skip)
        return norm
