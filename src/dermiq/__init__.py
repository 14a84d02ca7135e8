"""DermIQ: teach a vision-language model to reason about skin on one GPU."""

__version__ = "0.1.0"
