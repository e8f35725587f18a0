"""Evaluation of checkpoints on data, and predictions for texts."""
