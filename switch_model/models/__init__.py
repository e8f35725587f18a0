"""Models as transformers' PreTrainedModel: one stack of blocks, and the heads of each kind of model."""
