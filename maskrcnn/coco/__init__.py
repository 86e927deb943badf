"""The COCO annotation format: masks, documents, scores. numpy, no torch."""
