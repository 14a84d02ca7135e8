"""The command line from a checkout: ``python cli.py fit --config configs/grpo.yaml``, the same as ``dermiq fit``."""

if __name__ == "__main__":
    from dermiq import hush_interrupts

    hush_interrupts()

    from dermiq.cli import main

    main()
