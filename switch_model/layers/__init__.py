"""What a block is made of: router, experts' products, attention, embeddings; nothing here knows a whole model."""
