"""Export: an adapter with its model card, or merged weights as an ordinary model directory.

``python -m dermiq.export RUN --out DIR`` writes it; see `dermiq.export.__main__`.
"""
