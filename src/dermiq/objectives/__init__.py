"""Training objectives: losses, advantages and auxiliary objectives."""
