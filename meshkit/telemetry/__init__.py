"""What a running service tells of itself: metrics for Prometheus, and what its balancers see."""
