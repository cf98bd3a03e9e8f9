"""Estimates how accurate a model is on images that it has not seen, and calibrates its scores."""
