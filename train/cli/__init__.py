"""python -m train: commands, and the flags of a run from command line and config file."""
