"""transformers' PreTrainedModel family: one stack of blocks, and what each kind of model puts around it."""
