"""Every training argument, once: what it may be, sizes by name, and the model's configuration that follows."""
