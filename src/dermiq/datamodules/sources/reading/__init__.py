"""What sources share: rows of CSV, JSONL and Arrow files, label cards, images, answers."""
