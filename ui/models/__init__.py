"""The Models tab: every model that the page offers, and a visitor's own."""
