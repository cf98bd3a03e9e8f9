"""The tables of the README and the docs, filled from the files in ``results/``."""
