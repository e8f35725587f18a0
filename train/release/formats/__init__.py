"""One module for each format of python -m train export."""
