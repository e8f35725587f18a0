"""Metrics of many records, of a routed data set, and of a model without its experts."""
