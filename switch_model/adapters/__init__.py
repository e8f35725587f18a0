"""Mixture-of-experts models of transformers: their routers read, and their choices changed, by hooks for one call."""
