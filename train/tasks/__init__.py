"""Training tasks: for each its model, rows, batches and metrics."""
