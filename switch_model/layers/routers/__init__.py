"""Routers with several experts for each token, behind one interface (choosing.py)."""
