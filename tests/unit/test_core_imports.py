"""The core needs no Ray, no pyarrow, no object store and no CLI library, and the package's front door opens lazily."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BLOCKED = ("ray", "pyarrow", "obstore", "arro3", "tyro")

HEAVY = ("ray", "torch", "torchvision")
QUICK_COMMANDS = ("validate", "train", "evaluate", "predict", "report", "compare", "export")

PRELUDE = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}: blocked", name=name)
sys.meta_path.insert(0, Blocker())
"""


def run_blocked(code: str, blocked: tuple[str, ...] = BLOCKED) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PRELUDE.format(blocked=blocked) + code]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_the_blocker_blocks() -> None:
    code = "".join(
        f"try:\n    import {name}\nexcept ModuleNotFoundError as e:\n    print(e.name)\n" for name in BLOCKED
    )
    assert run_blocked(code).stdout.split() == list(BLOCKED)


def test_the_core_imports_without_the_jobs_libraries() -> None:
    modules = (
        "maskrcnn.model.predictor",
        "maskrcnn.model.weights",
        "maskrcnn.coco.evaluate",
        "maskrcnn.training.step",
        "maskrcnn.images",
        "maskrcnn.storage",
        "maskrcnn.synthetic",
    )
    done = run_blocked("\n".join(f"import {module}" for module in modules) + "\nprint('imported')")
    assert done.stdout == "imported\n", done.stderr


def test_the_front_door_gives_the_predictor_without_them() -> None:
    done = run_blocked(
        "import maskrcnn\n"
        "assert 'torch' not in sys.modules, 'importing the package loaded torch'\n"
        "print(maskrcnn.Predictor.__name__, maskrcnn.Detections.__name__)"
    )
    assert done.stdout == "Predictor Detections\n", done.stderr


def test_a_bundle_is_saved_and_read_without_them(tmp_path: Path) -> None:
    done = run_blocked(
        f"uri = {str(tmp_path)!r}\n"
        "from maskrcnn.config import ModelConfig, PreprocessConfig, ThresholdConfig\n"
        "from maskrcnn.model.bundle import Category, save_bundle\n"
        "from maskrcnn.model.network import build_network\n"
        "from maskrcnn.model.predictor import Predictor\n"
        "configs = ModelConfig('resnet18', num_labels=2), PreprocessConfig(64, 96), ThresholdConfig(1.0)\n"
        "names = 'model', 'preprocess', 'thresholds'\n"
        "table = [Category(1, 'tin', 1)]\n"
        "save_bundle(uri, build_network(*configs), **dict(zip(names, configs)), categories=table, provenance={})\n"
        "import torch\n"
        "print(len(Predictor.from_bundle(uri)([torch.zeros(3, 8, 8, dtype=torch.uint8)])))"
    )
    assert done.stdout == "1\n", done.stderr


@pytest.mark.parametrize("name", QUICK_COMMANDS)
def test_help_and_refusals_wait_for_no_heavy_library(name: str) -> None:
    call = f"from maskrcnn.commands.{name} import main\n"
    for words, code in (["--help"], 0), (["--no-such-option"], 2):
        done = run_blocked(f"{call}sys.argv = ['jobs/{name}.py', *{words}]\nmain()", HEAVY)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr


def test_a_table_is_read_scored_exported_and_reported_without_torch() -> None:
    modules = (
        "maskrcnn.labelling.table",
        "maskrcnn.labelling.coco_results",
        "maskrcnn.exports.job",
        "maskrcnn.report.job",
        "maskrcnn.counting.page",
        "maskrcnn.comparison.page",
    )
    done = run_blocked("\n".join(f"import {module}" for module in modules) + "\nprint('imported')", HEAVY)
    assert done.stdout == "imported\n", done.stderr
