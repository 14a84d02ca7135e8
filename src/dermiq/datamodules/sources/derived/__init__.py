"""Sources made of other sources: concatenated, split, or with questions and reasoning added."""
