"""The study: what makes reinforcement learning work on images of skin, as runs that anyone can repeat."""

import sys

from dermiq.programs.exits import sigint_default

if sys.argv[0] == "-m" and "study" in sys.orig_argv:  # as in dermiq/__init__.py
    sigint_default()
