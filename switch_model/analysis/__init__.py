"""Measures: of many records, of a data set that was routed, and of what becomes of a model without its experts."""
