"""Real servers for tests: started on free ports of loopback, ended by their process id."""

from tests.servers.consul import Consul, find_consul

__all__ = ["Consul", "find_consul"]
