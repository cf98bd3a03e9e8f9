"""Measurement: the accuracy of a learner on tasks, and what else makes a result: calibration, retrieval, tables."""
