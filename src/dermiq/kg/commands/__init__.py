"""The commands of ``python -m dermiq.kg``."""
