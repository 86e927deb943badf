"""The console script: ``maskrcnn predict …`` is ``python -m jobs.predict …``, where only the wheel is installed."""

from __future__ import annotations

import importlib
import sys

COMMANDS = {
    "demo": "the whole story on drawn shelves, on this machine, in minutes",
    "validate": "check a COCO data set before it is trained on",
    "train": "train Mask R-CNN on a COCO JSON, and leave a model bundle",
    "evaluate": "score predictions or a bundle by a COCO JSON",
    "predict": "label images with a bundle: detections and masks into Parquet",
    "compare": "compare two predictions tables, and judge the second one",
    "export": "hand a predictions table to other tools",
    "report": "pages about a predictions table: overview, gallery, scores, training",
}
USAGE = "usage: maskrcnn COMMAND [OPTIONS]\n\n{}\n\nmaskrcnn COMMAND --help lists every option."


def main() -> None:
    """Run a command, and exit with its code; 2 where there is no such command."""
    words = sys.argv[1:]
    if words[:1] in (["--version"], ["-V"]):
        import maskrcnn

        print(f"maskrcnn {maskrcnn.__version__}")
    elif not words or words[0] in ("-h", "--help"):
        print(USAGE.format("\n".join(f"  {name:<10}{text}" for name, text in COMMANDS.items())))
    elif words[0] not in COMMANDS:
        print(f"maskrcnn: COMMAND must be one of {', '.join(COMMANDS)}, got {words[0]}", file=sys.stderr)
        sys.exit(2)
    else:
        sys.argv = [f"maskrcnn {words[0]}", *words[1:]]
        importlib.import_module(f"maskrcnn.commands.{words[0]}").main()


if __name__ == "__main__":
    main()
