"""Checkpoints measured on data, and asked about texts, from the command line and at the end of a run."""
