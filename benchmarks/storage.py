"""Compare how many objects a second come out of an S3 store: the package's reads, with all checks, and its peers.

- ours: `storage.read_objects`, every body checked against the listed length and MD5
- obstore: the same client in threads, nothing checked
- s3fs: `cat` of many, with as many in flight and as many connections
- s3fs, threads: `cat_file` of each, from threads
- boto3, threads: `get_object` of each, from threads

All take turns on the same objects, in one process; medians of the rounds are given. The server is a fast one of this
folder (`object_server.py`), or moto's. It runs on the same cores as its clients and shares them, so that rates are too
low for all, and processor time a GET (the client's alone) tells more. It can wait before each answer, as real stores
do: that is what many reads in flight are for.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from machine import write_results
from object_server import BUCKET, build_bodies, key_of, object_server

from maskrcnn import storage

TARGET = 4.0
SIZES = (100_000, 500_000, 2_000_000)
IN_FLIGHT = (1, 8, 32, 128, 256)
MAX_ROUND_BYTES = 200_000_000
Way = Callable[[Sequence[storage.ObjectMeta], int], int]
"""Reads objects with so many in flight, and gives the number of bytes."""


def ours(listed: Sequence[storage.ObjectMeta], in_flight: int) -> int:
    """Read with checks."""
    num_bytes = 0
    for answer in storage.read_objects(listed, max_in_flight=in_flight):
        if not isinstance(answer.outcome, bytes):
            raise answer.outcome
        num_bytes += len(answer.outcome)
    return num_bytes


def build_obstore() -> Way:
    """Read with our client alone, its connections kept as ours."""
    import obstore

    from maskrcnn.storage.buckets import connect
    from maskrcnn.storage.object_store import READ_DEADLINES

    store = connect(f"s3://{BUCKET}", READ_DEADLINES)

    def read(one: storage.ObjectMeta) -> int:
        return len(obstore.get(store, _key(one)).bytes())

    return _in_threads(read)


def build_s3fs() -> dict[str, Way]:
    """Read with s3fs, its listing known, else it asks for each object's first; botocore's 10 connections are raised."""
    import s3fs

    opened: dict[tuple[str, int], Any] = {}

    def open_fs(listed: Sequence[storage.ObjectMeta], in_flight: int) -> Any:
        folder = listed[0].uri.rsplit("/", 1)[0]
        if (folder, in_flight) not in opened:
            fs = s3fs.S3FileSystem(
                endpoint_url=os.environ["AWS_ENDPOINT_URL"], config_kwargs={"max_pool_connections": in_flight}
            )
            fs.find(folder)
            opened[folder, in_flight] = fs
        return opened[folder, in_flight]

    def cat(listed: Sequence[storage.ObjectMeta], in_flight: int) -> int:
        bodies = open_fs(listed, in_flight).cat([one.uri for one in listed], batch_size=in_flight)
        return sum(map(len, bodies.values() if isinstance(bodies, dict) else [bodies]))

    def threads(listed: Sequence[storage.ObjectMeta], in_flight: int) -> int:
        fs = open_fs(listed, in_flight)
        return _in_threads(lambda one: len(fs.cat_file(one.uri)))(listed, in_flight)

    return {"s3fs": cat, "s3fs, threads": threads}


def build_boto3() -> Way:
    """Read with boto3; a client a number of connections."""
    import boto3
    from botocore.config import Config

    clients: dict[int, Any] = {}

    def read_all(listed: Sequence[storage.ObjectMeta], in_flight: int) -> int:
        if in_flight not in clients:
            clients[in_flight] = boto3.client("s3", config=Config(max_pool_connections=in_flight))
        client = clients[in_flight]
        return _in_threads(lambda one: len(client.get_object(Bucket=BUCKET, Key=_key(one))["Body"].read()))(
            listed, in_flight
        )

    return read_all


def _in_threads(read: Callable[[storage.ObjectMeta], int]) -> Way:
    def read_all(listed: Sequence[storage.ObjectMeta], in_flight: int) -> int:
        with ThreadPoolExecutor(in_flight) as pool:
            return sum(pool.map(read, listed))

    return read_all


def _key(one: storage.ObjectMeta) -> str:
    return one.uri.removeprefix(f"s3://{BUCKET}/")


def build_ways() -> dict[str, Way]:
    """Give what there is to compare here."""
    ways: dict[str, Way] = {"ours": ours, "obstore": build_obstore()}
    if importlib.util.find_spec("s3fs"):
        ways |= build_s3fs()
    if importlib.util.find_spec("boto3"):
        ways["boto3, threads"] = build_boto3()
    return ways


@contextmanager
def moto_server(sizes: Sequence[int], num_objects: int) -> Iterator[str]:
    """Serve the same objects from moto's S3, which is slow, and others know."""
    import boto3

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(port)]
    with tempfile.TemporaryFile() as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            endpoint = f"http://127.0.0.1:{port}"
            client = boto3.client("s3", endpoint_url=endpoint)
            client.create_bucket(Bucket=BUCKET)
            for size, bodies in build_bodies(list(sizes)).items():
                for place in range(num_objects):
                    body = bodies[place % len(bodies)].content
                    client.put_object(Bucket=BUCKET, Key=key_of(place, int(size)), Body=body)
            yield endpoint
        finally:
            server.terminate()


def list_objects(size: int) -> list[storage.ObjectMeta]:
    """List the objects of one size, as the labelling job does."""
    rows = [row for batch in storage.list_batches(f"s3://{BUCKET}/{size}") for row in batch.to_pylist()]
    return [storage.ObjectMeta(row["uri"], row["etag"], row["size"], row["last_modified"].timestamp()) for row in rows]


def measure_cell(way: Way, listed: Sequence[storage.ObjectMeta], in_flight: int) -> dict[str, float]:
    """Time one way once."""
    begin_cpu, begin = time.process_time(), time.perf_counter()
    num_bytes = way(listed, in_flight)
    seconds = time.perf_counter() - begin
    if num_bytes != sum(one.size for one in listed):
        raise SystemExit(f"read {num_bytes} bytes of {sum(one.size for one in listed)}")
    return {
        "objects_per_s": len(listed) / seconds,
        "mb_per_s": num_bytes / seconds / 1e6,
        "cpu_ms_per_object": (time.process_time() - begin_cpu) / len(listed) * 1e3,
    }


def measure(arguments: argparse.Namespace, ways: dict[str, Way]) -> list[dict[str, Any]]:
    """Let all ways take turns, at every size and number in flight."""
    table: list[dict[str, Any]] = []
    for size in arguments.sizes:
        listed = list_objects(size)
        for in_flight in arguments.in_flight:
            # So many that each of those in flight is used again and again, and memory holds all of them.
            some = listed[: min(arguments.turns * in_flight, max(MAX_ROUND_BYTES // size, in_flight))]
            cells: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
            for way in ways.values():
                way(some[:in_flight], in_flight)
            for number in range(arguments.rounds):
                names = [*ways][number % len(ways) :] + [*ways][: number % len(ways)]
                for name in names:
                    cells[name].append(measure_cell(ways[name], some, in_flight))
            for name, rounds in cells.items():
                medians = {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
                table.append({"size_bytes": size, "in_flight": in_flight, "way": name, "objects": len(some), **medians})
                print(_line(table[-1]), flush=True)
    return table


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['size_bytes']:>9,} B {row['in_flight']:>4} in flight  {row['way']:<15}"
        f"{row['objects_per_s']:>8.0f} objects/s {row['mb_per_s']:>6.0f} MB/s "
        f"{row['cpu_ms_per_object']:>7.2f} ms CPU an object"
    )


def best_of(table: list[dict[str, Any]], size: int, *names: str) -> float:
    """Give the best rate at a size, whatever the number in flight."""
    return max((row["objects_per_s"] for row in table if row["size_bytes"] == size and row["way"] in names), default=0)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="100 kB only, 1 and 32 in flight, one round")
    parser.add_argument("--sizes", type=int, nargs="+", help=f"of the objects, bytes (default: {SIZES})")
    parser.add_argument("--in-flight", type=int, nargs="+", help=f"reads at once (default: {IN_FLIGHT})")
    parser.add_argument("--rounds", type=int, help="of which medians are taken (default: 5)")
    parser.add_argument("--turns", type=int, default=16, help="objects for each of those in flight (default: 16)")
    parser.add_argument("--latency-ms", type=float, default=20, help="before each answer of ours (default: 20)")
    parser.add_argument("--server", choices=("ours", "moto"), default="ours", help="which S3 (default: ours)")
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    arguments = parser.parse_args()
    arguments.sizes = arguments.sizes or ([SIZES[0]] if arguments.small else list(SIZES))
    arguments.in_flight = arguments.in_flight or ([1, 32] if arguments.small else list(IN_FLIGHT))
    arguments.rounds = arguments.rounds or (1 if arguments.small else 5)
    if min(*arguments.sizes, *arguments.in_flight, arguments.rounds, arguments.turns) < 1 or arguments.latency_ms < 0:
        parser.error("--sizes, --in-flight, --rounds and --turns must be 1 or more, --latency-ms 0 or more")
    return arguments


def main() -> int:
    """Run the comparison; 0 when ours is four times s3fs at the smallest size, or s3fs is not there."""
    arguments = parse_arguments()
    load_before = os.getloadavg()[0]
    num_objects = arguments.turns * max(arguments.in_flight)
    os.environ.update(AWS_ACCESS_KEY_ID="none", AWS_SECRET_ACCESS_KEY="none", AWS_REGION="us-east-1")
    os.environ["AWS_DEFAULT_REGION"] = "us-east-1"
    is_moto = arguments.server == "moto"
    server = (
        moto_server(arguments.sizes, num_objects)
        if is_moto
        else object_server(arguments.sizes, num_objects, arguments.latency_ms / 1e3)
    )
    with server as endpoint:
        os.environ["AWS_ENDPOINT_URL"] = endpoint
        table = measure(arguments, build_ways())
    summary = {
        size: {
            "ours": best_of(table, size, "ours"),
            "s3fs": best_of(table, size, "s3fs", "s3fs, threads"),
        }
        for size in arguments.sizes
    }
    for size, best in summary.items():
        if best["s3fs"]:
            best["times"] = best["ours"] / best["s3fs"]
            times = f"{best['times']:.1f} times s3fs's {best['s3fs']:.0f}"
            print(f"{size:>9,} B: ours reads {best['ours']:.0f} objects/s, {times}")
    if arguments.output:
        settings = {name: getattr(arguments, name) for name in ("server", "rounds", "turns")}
        settings["latency_ms"] = None if is_moto else arguments.latency_ms
        figures = {**settings, "best_objects_per_s": summary, "table": table}
        write_results(arguments.output, "storage", figures, load_before)
    smallest = summary[min(arguments.sizes)]
    if "times" not in smallest:
        print("s3fs is not installed, so there is nothing to compare with: pip install s3fs")
        return 0
    is_good = smallest["times"] >= TARGET
    print(f"ours is {'' if is_good else 'not '}{TARGET:g} times as fast as s3fs at {min(arguments.sizes):,} B")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
