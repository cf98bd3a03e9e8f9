"""Tuning: an encoder learns from the images of a user, and that is kept only if a test says that it helps."""
