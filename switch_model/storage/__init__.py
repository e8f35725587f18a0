"""Files: checkpoints read without running anything in them, written whole or not at all, and fetched from the Hub."""
