"""Experiments: a training as one value, the training loop, the run folder, recipes, evaluation and results."""
