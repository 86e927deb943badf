"""What starting Ray on one machine does to the process that starts it."""

from __future__ import annotations

import io
import logging

from maskrcnn import cluster


def test_quieting_ray_data_does_not_quieten_our_own_warnings() -> None:
    ours, ray_data = logging.getLogger("maskrcnn.here"), logging.getLogger("ray.data")
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    logging.getLogger().addHandler(handler)
    before = ray_data.handlers[:]
    ray_data.addHandler(handler)  # as Ray Data does when it is imported after logging was configured
    try:
        cluster.keep_ray_data_off_the_terminal()
        ray_data.error("plumbing")
        ours.warning("the bucket is on fire")
    finally:
        logging.getLogger().removeHandler(handler)
        ray_data.handlers[:] = before
    assert text.getvalue() == "the bucket is on fire\n"
