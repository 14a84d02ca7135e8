"""DermIQ: teach a vision-language model to reason about skin on one GPU."""

import logging
import os
import signal
import sys

# Read when torch is first imported. Threads that spin while they wait for each other slow a small model down by a
# factor of 50 as soon as another process wants the same cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# peft imports bitsandbytes, which on CPUs with AVX512-BF16 misses a kernel for packed weights. Nothing here packs any.
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(lambda record: "gemm_4bit_forward" not in str(record.msg))

__version__ = "0.1.0"


def hush_interrupts() -> None:
    """Let Ctrl-C end the process at once and in silence: a program's imports take seconds, and leave nothing to save.

    A Ctrl-C that the shell ignores (``nohup``, ``&`` in a script) stays ignored.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def heed_interrupts() -> None:
    """Make Ctrl-C a KeyboardInterrupt again, once a program has imported what it needs."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


# This file is the first that `dermiq …` and `python -m dermiq.…` run; who merely imports the package is left alone.
if os.path.basename(sys.argv[0]) == "dermiq" or (sys.argv[0] == "-m" and "dermiq" in " ".join(sys.orig_argv)):
    hush_interrupts()
