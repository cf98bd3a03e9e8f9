"""Search of folders of images by a query image."""
