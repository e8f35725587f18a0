"""Flags of the smallest model worth training."""

SMALL = ["--preset", "tiny", "--d_model", "16", "--num_heads", "2", "--vocab_size", "200", "--seq_len", "16"]
