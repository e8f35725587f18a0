"""Training, evaluation and packaging of Switch models: python -m train --help."""
