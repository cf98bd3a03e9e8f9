"""Sheets of images: a task, search results, and text in any script."""
