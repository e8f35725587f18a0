"""The cards beside the grid, as HTML: pure functions of a view."""
