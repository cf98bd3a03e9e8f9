"""Trained networks by name: ours, those that ship with the library, and other people's."""
