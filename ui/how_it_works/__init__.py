"""The How it works tab: one sparse layer with the numbers of the view, and what more experts bring in training."""
