"""Readers of claims beside the rules of `dermiq.kg.language`."""
