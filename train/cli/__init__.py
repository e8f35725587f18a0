"""python -m train: its commands, and the flags and config files of runs."""
