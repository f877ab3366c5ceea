"""Users: the people who may order, over HTTP and gRPC."""

__version__ = "1.0.0"
