"""A training as one value: the loop, the run folder, recipes, evaluation and results."""
