"""What a test does to a training from inside its steps: note which images come, end a worker, spoil a loss.

Run as a program, it is the training command with such a hook: ``python -m tests.integration.training_faults HOOK ...``.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch.distributed as dist
from torch import Tensor

from maskrcnn.training.samples import Sample


@dataclass(frozen=True)
class StepHook:
    """Called by every worker with every micro-batch, before its backward pass."""

    folder: str
    """Where it is noted what came by."""
    dies_at: tuple[int, int] = (-1, -1)
    """Step and rank of a worker that ends there, once."""
    nonfinite_image_id: int = -1
    """The image whose losses become NaN."""

    def __call__(self, step: int, samples: Sequence[Sample], sums: Tensor) -> Tensor:
        rank = dist.get_rank() if dist.is_initialized() else 0
        ids = [sample.image_id for sample in samples]
        with (Path(self.folder) / f"seen-{os.getpid()}.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, "image_ids": ids}) + "\n")
        marker = Path(self.folder) / "died"
        if (step, rank) == self.dies_at and not marker.exists():
            marker.touch()
            os._exit(1)
        factor = sums.new_tensor([float("nan") if each == self.nonfinite_image_id else 1.0 for each in ids])
        return sums * factor

    def to_words(self) -> str:
        return json.dumps(asdict(self))


def seen_by_step(folder: Path) -> dict[int, set[int]]:
    """Give the images of every step, whoever saw them; a step that was done again must have the same."""
    seen: dict[int, set[int]] = {}
    for path in sorted(folder.glob("seen-*.jsonl")):
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            seen.setdefault(entry["step"], set()).update(entry["image_ids"])
    return seen


def main() -> None:
    from maskrcnn.commands.command_line import run_command
    from maskrcnn.commands.train import defaults, describe_report
    from maskrcnn.training.arguments import TrainArguments
    from maskrcnn.training.job import TrainingJob

    values = json.loads(sys.argv.pop(1))
    hook = StepHook(values["folder"], tuple(values["dies_at"]), values["nonfinite_image_id"])

    def train(arguments: TrainArguments) -> int:
        sys.stdout.write(describe_report(TrainingJob(arguments, on_losses=hook).run()) + "\n")
        return 0

    run_command(TrainArguments, train, "train", defaults)


if __name__ == "__main__":
    # Under its own name, so that workers find the class where it lies.
    from tests.integration.training_faults import main as run

    run()
