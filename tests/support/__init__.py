"""Test helpers: tiny models, data sets on disk, runs through the command line, reference implementations."""
