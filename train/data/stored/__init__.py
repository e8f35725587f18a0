"""Tables too large for memory: rows in Arrow on disk, and their token ids."""
