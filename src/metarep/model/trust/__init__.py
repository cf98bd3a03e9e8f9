"""How right a model is on images that it has not seen, and how sure that is."""
