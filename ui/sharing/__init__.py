"""A view to keep or pass on: links, records, reports, tables and pictures."""
