"""What each part of a model writes: its direct contribution to the logits."""
