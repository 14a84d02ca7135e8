"""DermIQ: teach a vision-language model to reason about skin on one GPU."""

import os

# Read when torch is first imported. Threads that spin while they wait for each other slow a small model down by a
# factor of 50 as soon as another process wants the same cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
