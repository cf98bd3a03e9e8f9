"""Sweeps: try settings of a method on Optuna, and choose among them on validation classes."""
