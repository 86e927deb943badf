"""Compare two labelled folders over the same images, and say whether the second one is a regression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NoReturn

import tyro

from maskrcnn import storage
from maskrcnn.commands.command_line import DONE, NOT_AS_IT_SHOULD_BE, run_command
from maskrcnn.comparison.gate import load_gate
from maskrcnn.comparison.job import Comparison, ComparisonConfig, compare_tables
from maskrcnn.comparison.page import PAGE, check_output, describe_comparison, write_comparison
from maskrcnn.errors import OutputError, StorageError
from maskrcnn.progress import ProgressOf


@dataclass(frozen=True)
class CompareArguments:
    """Compare two labelled folders over the same images, as a new bundle's sample with a labelled night: what is lost
    and gained, by category and by group; --gate says whether it may pass."""

    a: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="A")]
    """The --output of a labelling job: what is trusted."""
    b: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="B")]
    """The --output of another one: what is judged. Images that only one of them has are counted, and left out."""
    output: str
    """The folder for index.html and comparison.json; a new one, or an earlier comparison's, which is replaced."""
    by: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Group images: columns of A's table, and regular expressions over the URI with named groups, as
    '/(?P<store>[^/]+)/(?P<camera>[^/]+)/[^/]+$'; may be given several times."""
    score_threshold: float | None = None
    """Of both, in [0, 1]; default: the higher of those that the tables were labelled with."""
    gate: str | None = None
    """A TOML file of limits; one that is exceeded ends in exit code 1. See deploy/gate.toml."""
    worst: int = 24
    """How many of the images that differ most to show, side by side."""
    images: str | None = None
    """Find the images below this folder, by the end of their names; default: where A's table says."""


def compare(arguments: CompareArguments) -> int:
    """Compare, write the page, print the tables, and judge."""
    config = ComparisonConfig(
        a_uri=arguments.a,
        b_uri=arguments.b,
        by=arguments.by,
        score_threshold=arguments.score_threshold,
        num_worst=arguments.worst,
        gate=None if arguments.gate is None else load_gate(arguments.gate),
    )
    try:
        check_output(arguments.output)
    except StorageError as error:
        raise OutputError("--output", f"cannot be read: {error.reason}", error.uri) from error
    comparison = compare_tables(config, ProgressOf("comparing"))
    try:
        write_comparison(comparison, arguments.output, arguments.images)
    except StorageError as error:
        raise OutputError("--output", f"cannot be written: {error.reason}", error.uri) from error
    print(describe_comparison(comparison))
    print(f"page: {storage.join(arguments.output, PAGE)}")
    return _judge(comparison)


def _judge(comparison: Comparison) -> int:
    if comparison.exceeded is None:
        if not comparison.images.compared:
            print("NOTHING COMPARED: no image was labelled in both tables")
            return NOT_AS_IT_SHOULD_BE
        return DONE
    for one in comparison.exceeded:
        print(f"exceeded: {one}")
    print("THE GATE IS CLOSED" if comparison.exceeded else "the gate is open")
    return NOT_AS_IT_SHOULD_BE if comparison.exceeded else DONE


GROUPS = {
    "output": "what to leave",
    "by": "how to compare, and to judge",
    "worst": "what to show",
}


def main() -> NoReturn:
    """Run the command."""
    run_command(CompareArguments, compare, "compare", groups=GROUPS)
