"""The command line from a checkout: ``python cli.py fit --config configs/grpo.yaml``, the same as ``dermiq fit``."""

if __name__ == "__main__":
    from dermiq.programs.exits import sigint_default

    sigint_default()

    from dermiq.cli import main

    main()
