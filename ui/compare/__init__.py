"""The Compare tab: two texts or two models side by side, and one text over a run's checkpoints."""
