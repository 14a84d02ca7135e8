"""The command line from a checkout: ``python cli.py fit --config configs/grpo.yaml``, the same as ``dermiq fit``."""

from dermiq.cli import main

if __name__ == "__main__":
    main()
