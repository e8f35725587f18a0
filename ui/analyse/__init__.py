"""The Analyse tab: a whole data set through a model."""
