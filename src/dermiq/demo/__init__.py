"""A page to try a trained policy on: ``python -m dermiq.demo``; see `dermiq.demo.__main__`."""
