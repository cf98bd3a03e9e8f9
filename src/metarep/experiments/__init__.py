"""Training and evaluation: the job, the training loop, the run folder, recipes and results."""
