"""Train Mask R-CNN on a COCO JSON, on one machine or on a cluster, and leave a model bundle."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, NoReturn

import tyro

from maskrcnn.commands.command_line import DONE, run_command
from maskrcnn.progress import clock
from maskrcnn.training.arguments import TrainArguments, with_preset

if TYPE_CHECKING:
    from maskrcnn.training.job import TrainReport


def train(arguments: TrainArguments) -> int:
    """Train, and say where everything is."""
    from maskrcnn.training.job import TrainingJob  # torch and Ray take seconds; help and refusals do without

    report = TrainingJob(arguments).run(announce=lambda text: print(text, flush=True))
    print(describe_report(report))
    return DONE


def describe_report(report: TrainReport) -> str:
    """Say what was done, and what to do with it."""
    state = report.state
    done = "nothing was left to do" if report.was_done else "trained"
    lines = [f"{done}: {state.step:,} steps in {clock(state.seconds)}"]
    if state.best_score is not None:
        lines.append(f"best mAP {state.best_score:.3f} at step {state.best_step:,}")
    if state.skipped:
        lines.append(f"skipped {len(state.skipped)} steps whose losses were not finite: {'; '.join(state.skipped)}")
    lines.append(f"bundle: {report.bundle_uri}")
    return "\n".join(lines)


def defaults(words: list[str]) -> TrainArguments:
    """Give what holds where a command line says nothing: the values of the preset that it names."""
    found = unset = TrainArguments(images=tyro.MISSING, annotations=tyro.MISSING, output=tyro.MISSING)
    for word, following in pairwise([*words, ""]):
        if word == "--preset" or word.startswith("--preset="):
            found = with_preset(unset, word.partition("=")[2] or following)
    if any(word.partition("=")[0] == "--epochs" for word in words):
        found = replace(found, max_steps=None)  # else a preset's steps would go before the epochs that are given
    return found


GROUPS = {
    "images": "what to learn, where to",
    "backbone": "the network",
    "batch_size": "the schedule",
    "rois_per_image": "what is learnt from an image",
    "flip_probability": "augmentation",
    "precision": "how it runs",
    "validate_epochs": "validation, checkpoints, failures",
}


def main() -> NoReturn:
    """Run the command."""
    run_command(TrainArguments, train, "train", defaults, groups=GROUPS)
