"""Folders of images, searched by image."""
