"""COCO's scores, equal to pycocotools', and what else the matches of predictions and annotations tell.

`sides` lists both, `overlaps` (or `boundary`) says how much they overlap, `matching` who has found whom, `scoring` what
that is worth; `metrics` sums up, `analysis` looks closer, and `scoreboard` lays it out.
"""

from __future__ import annotations

from maskrcnn.coco.evaluate.metrics import IouType, Metrics, evaluate

__all__ = ["IouType", "Metrics", "evaluate"]
