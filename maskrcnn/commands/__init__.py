"""The commands: parse, call, exit code."""

import os

# Before torch is loaded: its threads otherwise spin while they wait for each other, and where another program wants a
# core too, they spin against the very thread they wait for. Workers of a local Ray inherit it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
