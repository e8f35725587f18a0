"""One run from start to end: loop, trainer, reporting."""
