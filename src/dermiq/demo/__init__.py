"""Demo: a page in the browser to try a trained policy (``python -m dermiq.demo``)."""
