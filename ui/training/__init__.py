"""The Train tab: start a run, watch it, look through all of them."""
