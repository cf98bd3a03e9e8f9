"""The server and its page: a model folder over HTTP (extra ``serve``)."""
