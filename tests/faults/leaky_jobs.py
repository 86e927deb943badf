"""Commands on a local Ray whose every worker tells secrets when it fails: run as ``python -m tests.faults.leaky_jobs``.

Argument: a JSON file with the command lines, by name; their exit codes are written beside it.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path

from tests.conftest import PROJECT_ROOT

SIGNED = "https://bucket.s3.amazonaws.com/a.jpg?X-Amz-Credential={id}%2F20261122&X-Amz-Signature={key}"
TELLS_A_SECRET = "tells-a-secret"
WITNESS = "LEAKY_JOBS_WITNESS"


def tell_secrets() -> str:
    """Say what a careless library would."""
    key_id, key = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
    password, token = os.environ["DB_PASSWORD"], os.environ["AWS_SESSION_TOKEN"]
    return f"GET {SIGNED.format(id=key_id, key=key)} with {key_id} {key} {token}; s3://{key_id}:{password}@bucket"


def install() -> None:
    """Run in every worker before anything else."""
    from maskrcnn import images, storage

    real_header, real_read, real_put = images.read_header, storage.read_bytes, storage.put_if_absent

    def read_header(body: bytes, **options: object) -> object:
        if TELLS_A_SECRET.encode() in body:
            raise RuntimeError(tell_secrets())
        return real_header(body, **options)  # type: ignore[arg-type]

    def read_bytes(uri: str) -> bytes:
        if TELLS_A_SECRET in uri and _is_first_time():
            raise RuntimeError(tell_secrets())
        return real_read(uri)

    def put_if_absent(uri: str, body: bytes) -> object:
        if uri.endswith("part-000001-00001.parquet"):
            raise RuntimeError(tell_secrets())
        return real_put(uri, body)

    images.read_header = read_header  # type: ignore[assignment]
    storage.read_bytes = read_bytes
    storage.put_if_absent = put_if_absent  # type: ignore[assignment]


def _is_first_time() -> bool:
    """Say so once, to whichever process asks first."""
    try:
        Path(os.environ[WITNESS]).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def main() -> None:
    from maskrcnn import cluster

    plan_path = Path(sys.argv[1])
    plan = json.loads(plan_path.read_text())
    environment = {"PYTHONPATH": str(PROJECT_ROOT)}
    hook = f"{install.__module__.replace('__main__', 'tests.faults.leaky_jobs')}.install"
    cluster.start_local_ray(
        num_cpus=2,
        _temp_dir=plan["ray"],
        runtime_env={"env_vars": environment, "worker_process_setup_hook": hook},
    )
    codes: dict[str, object] = {}
    for name, words in plan["commands"].items():
        job = importlib.import_module(f"maskrcnn.commands.{words[0].removeprefix('jobs.')}")
        sys.argv = [words[0], *words[1:]]
        try:
            _run(words[0].removeprefix("jobs."), job)
        except SystemExit as stop:
            codes[name] = stop.code
        sys.stdout.flush()
    plan_path.with_name("codes.json").write_text(json.dumps(codes))
    raise RuntimeError(tell_secrets())  # an uncaught traceback, too


def _run(name: str, job: object) -> None:
    from maskrcnn.commands.command_line import run_command

    commands = {
        "predict": lambda: (job.PredictArguments, job.predict, "predict"),  # type: ignore[attr-defined]
        "validate": lambda: (job.ValidateArguments, job.validate, "validate"),  # type: ignore[attr-defined]
        "train": lambda: (job.TrainArguments, job.train, "train", job.defaults),  # type: ignore[attr-defined]
    }
    run_command(*commands[name]())


if __name__ == "__main__":
    main()
