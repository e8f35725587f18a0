"""Training arguments, each declared once: values, presets, and the model's configuration."""
