"""Ranks of a real process group on this machine, for tests of what they do together."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

_PATIENCE_S = 240


def run_ranks(folder: Path, world_size: int, work: Callable[..., Any], *args: Any) -> list[Any]:
    """Call ``work(rank, group, *args)`` on every rank, each a process of its own, and give what they return.

    Args:
        folder: an empty one.
        world_size: the number of ranks.
        work: a function of a module, since processes start afresh.
        args: what can be pickled.
    """
    context = multiprocessing.get_context("spawn")
    # As bytes: a tensor that is sent as it is lies in memory that all ranks share, and is no rank's own.
    packed = pickle.dumps(args)
    ranks = [
        context.Process(target=_run, args=(rank, world_size, str(folder), work, packed)) for rank in range(world_size)
    ]
    for process in ranks:
        process.start()
    deadline = time.monotonic() + _PATIENCE_S
    while any(process.is_alive() for process in ranks) and time.monotonic() < deadline:
        if any(process.exitcode for process in ranks):
            break
        time.sleep(0.05)
    is_hanging = time.monotonic() >= deadline
    for process in ranks:
        process.kill()
        process.join()
    results = [torch.load(folder / f"rank-{rank}.pt", weights_only=False) for rank in _done(folder)]
    errors = [result for result in results if isinstance(result, str)]
    assert not errors, errors[0]
    assert not is_hanging, f"ranks {_done(folder)} of {world_size} were done after {_PATIENCE_S} s"
    assert len(results) == world_size, [process.exitcode for process in ranks]
    return results


def _done(folder: Path) -> list[int]:
    return sorted(int(path.stem.removeprefix("rank-")) for path in folder.glob("rank-*.pt"))


def _run(rank: int, world_size: int, folder: str, work: Callable[..., Any], packed: bytes) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world_size)
    try:
        result = work(rank, dist.group.WORLD, *pickle.loads(packed))
    except Exception:
        _keep(traceback.format_exc(), folder, rank)
        os._exit(1)
    dist.barrier()
    dist.destroy_process_group()
    _keep(result, folder, rank)


def _keep(result: Any, folder: str, rank: int) -> None:
    path = Path(folder, f"rank-{rank}.pt")
    torch.save(result, path.with_suffix(".part"))
    path.with_suffix(".part").rename(path)
