"""Data: files and data sets of any format -> columns of texts, classes or pairs -> token ids."""
