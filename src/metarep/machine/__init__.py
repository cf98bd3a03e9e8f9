"""What the machine gives: devices, threads, files and locks, and the door to ``fast/``."""
