"""``python -m jobs.X``, as a checkout and ``ray job submit`` run the commands of ``maskrcnn.commands``."""
