"""The policy: the VLM with its adapters, how it runs, and how completions are sampled from it."""
