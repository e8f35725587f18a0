"""Files and data sets of any make as columns of texts, classes or pairs, and texts as token ids."""
