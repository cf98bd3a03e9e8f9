"""Trained networks by name: runs of this library, models that ship with it, and third-party networks."""
