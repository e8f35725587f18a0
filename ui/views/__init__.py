"""What one visitor is looking at, as frozen values."""
