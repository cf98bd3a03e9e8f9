"""Models of several labels an image, or none: what they are, how they are measured, and their folder."""
