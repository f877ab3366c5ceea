"""HTTP/1.1 over asyncio: connections of our own to each instance."""

from meshkit.client.http1.transport import Http1Transport

__all__ = ["Http1Transport"]
