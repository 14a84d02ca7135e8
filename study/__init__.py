"""The study: what makes reinforcement learning work on images of skin, as runs that anyone can repeat."""
