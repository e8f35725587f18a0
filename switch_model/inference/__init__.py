"""Pipelines: text -> class, generated text or filled blanks, each with the routing of every token."""
