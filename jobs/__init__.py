"""The commands: parse, call, exit code."""

import os

# Read when torch loads its thread pool. Threads that spin while they wait cost a busy machine ten times the time.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
