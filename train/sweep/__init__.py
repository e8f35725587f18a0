"""Sweeps: many runs over a space of arguments, with table and plots."""
