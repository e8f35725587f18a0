"""A finished run made small, described by a model card, and sent to the Hub."""
