"""The HTTP server of a model folder, and its web page (extra ``serve``)."""
