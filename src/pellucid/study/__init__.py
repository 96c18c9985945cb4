"""Studies: the grid of data sets, models and folds, and what each cell leaves on disk."""
