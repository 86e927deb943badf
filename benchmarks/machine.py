"""Say where figures come from, and what a process costs: for every benchmark's JSON. Reads /proc, so Linux only."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "torchvision", "ray", "pyarrow", "numpy", "pillow", "pycocotools", "faster-coco-eval")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def describe_machine() -> dict[str, Any]:
    """Describe processor, memory, load and versions as they are now."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(pages / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
    }


def write_results(path: Path, benchmark: str, figures: dict[str, Any], load_before: float) -> None:
    """Write a benchmark's JSON: what was measured, and where.

    Args:
        path: the file; its folder is made.
        benchmark: the script's name.
        figures: what was measured.
        load_before: the load average before the benchmark itself added to it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    machine = {**describe_machine(), "load_average_before": round(load_before, 2)}
    path.write_text(json.dumps({"benchmark": benchmark, "machine": machine, **figures}, indent=2) + "\n")


def describe_device(device: torch.device) -> str:
    """Name what a network runs on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"


def reachable_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Give the most operations in a second that a large matrix product or convolution reaches on random numbers."""
    side = 8192 if device.type == "cuda" else 2048
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    layer = torch.nn.Conv2d(256, 256, 3, padding=1, device=device, dtype=dtype).to(memory_format=torch.channels_last)
    features = torch.randn(1, 256, 128, 128, device=device).to(dtype, memory_format=torch.channels_last)
    work: list[tuple[Callable[[], Any], float]] = [
        (lambda: left @ right, 2 * side**3),
        (lambda: layer(features), 2 * 9 * 256**2 * 128**2),
    ]
    best = 0.0
    with torch.inference_mode():
        for run, num_operations in work * 6:
            begin = time.perf_counter()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize()
            best = max(best, num_operations / (time.perf_counter() - begin))
    return best


def peak_rss_bytes(pid: int | str = "self") -> int:
    """Give the most memory that a process has held; 0 when it is gone.

    Not ``ru_maxrss``: that one starts at what the parent held when it forked.
    """
    return _status_bytes(pid, "VmHWM")


def rss_bytes(pid: int | str = "self") -> int:
    """Give the memory that a process holds; 0 when it is gone."""
    return _status_bytes(pid, "VmRSS")


def uss_bytes(pid: int | str = "self") -> int:
    """Give the memory that a process shares with no other; 0 when it is gone."""
    return _mapped_bytes(pid, ("Private_Clean:", "Private_Dirty:"))


def pss_bytes(pid: int | str = "self") -> int:
    """Give the memory of a process, of what it shares with others its share; 0 when it is gone."""
    return _mapped_bytes(pid, ("Pss:",))


def cpu_seconds(pid: int) -> float:
    """Give the processor time of a process, user and system, all threads; 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def process_tree(root_pid: int) -> dict[int, str]:
    """List a process and all that it started, by pid, with their command lines."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parents[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
    tree = [root_pid]
    for pid in tree:
        tree.extend(child for child, parent in parents.items() if parent == pid)
    return {pid: _command_line(pid) for pid in tree}


def _mapped_bytes(pid: int | str, names: tuple[str, ...]) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(names))


def _status_bytes(pid: int | str, name: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0)


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:  # a bare GPU host has only what the core needs
        return "none"


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
