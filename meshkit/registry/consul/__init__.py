"""``consul://HOST:PORT``: HashiCorp Consul, through the agent at that address.

Parts, from the wire up: ``connection`` (HTTP), ``failures`` (its errors as ours), ``tokens``,
``certificates``, ``options`` and ``settings`` (the URL and Consul's variables), ``transport``
(requests), ``builders`` (python-consul2, which builds them), ``codec`` and ``checks`` (instances as
Consul's services), ``polling`` (blocking queries), ``indexes``, ``sweep`` and ``watches`` (many of
them over few connections), ``keyvalue``, ``reader`` (one datacenter), ``doubts`` (an agent that its
servers refuse), ``hidden`` (what may not be read), ``turns`` (the order of writes) and ``engine``
(the registry).
"""

from meshkit.registry.consul.engine import ConsulRegistry, open_consul
from meshkit.registry.consul.options import ConsulOptions

__all__ = ["ConsulOptions", "ConsulRegistry", "open_consul"]
