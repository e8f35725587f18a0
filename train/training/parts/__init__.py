"""Which weights of a model a run trains."""
