"""Files: checkpoints read without running any code in them, written atomically, and downloaded from the Hub."""
