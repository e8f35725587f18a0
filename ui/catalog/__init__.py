"""Which models and sample texts there are, and what each kind of model does with a text."""
