"""What YAML names under ``trainer:``: callbacks, checkpoints, the sharded strategy, writers of results, preflight."""
