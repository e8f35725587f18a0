"""Sources of weights: an initial model, a run's checkpoints, an old state dict, transformers' models."""
