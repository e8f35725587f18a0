"""What the browser shows: one file per tab, handlers as plain functions that take and return values."""
