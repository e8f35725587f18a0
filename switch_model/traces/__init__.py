"""Routing recorded elsewhere, read and compared without the model."""
