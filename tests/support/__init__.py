"""What tests share: tiny models, data sets on disk, runs through the command line, references to compare with."""
