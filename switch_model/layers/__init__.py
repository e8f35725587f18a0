"""Parts of a block: router, experts, attention, embeddings. Nothing here knows a whole model."""
