"""From a COCO JSON to a model bundle."""
