"""Devices, threads, random numbers, files and locks, and the door to ``fast/``."""
