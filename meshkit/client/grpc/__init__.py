"""gRPC by service name: a channel on which any generated stub works.

The stub picks nothing and knows no address. Each call goes to an instance that the balancer
picks, over that instance's own connection, and on to another one when the first can't have had
it. Import this package on use: it needs grpc, which a service that speaks only HTTP does not.
"""

from meshkit.client.grpc.channel import MeshChannel
from meshkit.client.grpc.pool import ChannelPool

__all__ = ["ChannelPool", "MeshChannel"]
