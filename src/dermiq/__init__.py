"""DermIQ: teach a vision-language model to reason about skin on one GPU."""

import logging
import os
import sys

from dermiq.programs.exits import sigint_default

# This file is the first that `dermiq …` and `python -m dermiq.…` run; who merely imports the package is left alone.
if os.path.basename(sys.argv[0]) == "dermiq" or (sys.argv[0] == "-m" and "dermiq" in " ".join(sys.orig_argv)):
    sigint_default()

# Read when torch is first imported. Threads that spin while they wait for each other slow a small model down by a
# factor of 50 as soon as another process wants the same cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# peft imports bitsandbytes, which on CPUs with AVX512-BF16 misses a kernel for packed weights. Nothing here packs any.
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(lambda record: "gemm_4bit_forward" not in str(record.msg))

__version__ = "0.1.0"
