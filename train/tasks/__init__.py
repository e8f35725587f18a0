"""What can be learned: for each task its model, rows, batches and metrics."""
