"""Models as graphs that run without torch."""
