"""What others load: an adapter with its model card, or the merged weights as an ordinary model directory.

``python -m dermiq.export RUN --out DIR`` writes it; see `dermiq.export.__main__`.
"""
