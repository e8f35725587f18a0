"""plotly figures of records, of a run's checkpoints, and of a routed data set: pure functions, no input or output."""
