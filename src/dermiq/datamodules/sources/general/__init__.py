"""Sources of a user's own files: tables, conversations, preferences, data sets of the hub."""
