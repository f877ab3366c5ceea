"""Calling other services by name, over HTTP and gRPC."""
