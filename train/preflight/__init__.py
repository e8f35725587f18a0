"""Before a run: a report on the data with warnings, a suggested task, and an estimate of the run's cost."""
