"""The local view of the registry: subscription, cache, balancer."""
