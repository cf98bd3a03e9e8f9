"""Near copies: images that show the same picture twice."""
