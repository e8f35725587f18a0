"""Where weights come from: another model, a run's kept checkpoints, an old state dict, transformers' own models."""
