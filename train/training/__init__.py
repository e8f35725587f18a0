"""One run from start to end: the loop, the trainer, and what it reports on its way."""
