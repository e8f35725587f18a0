"""Release: package a finished run with a model card, and upload it to the Hub."""
