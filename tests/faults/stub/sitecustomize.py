"""Python imports this at its start where this folder is on the path: a job's processes then have the stub network.

The driver and Ray's workers inherit PYTHONPATH, so that the job's own code needs no door for its tests.
"""

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

PATCHED = "maskrcnn.labelling.maker"


class _Finder:
    """Finds the one module that loads the network, and gives it another way to load one."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name != PATCHED:
            return None
        sys.meta_path.remove(self)  # type: ignore[arg-type]
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        exec_module = spec.loader.exec_module

        def exec_and_patch(module: ModuleType) -> None:
            exec_module(module)
            from tests.faults.stub_network import load_stub

            module.load_predictor = load_stub  # type: ignore[attr-defined]

        spec.loader.exec_module = exec_and_patch  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, _Finder())  # type: ignore[arg-type]
