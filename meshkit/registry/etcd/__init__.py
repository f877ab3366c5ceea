"""``etcd://HOST:PORT,...``: etcd 3, and ``skydns+etcd://``, which feeds CoreDNS through it.

Parts, from the wire up: ``messages`` (etcd's, made at run time), ``tls`` (certificates), ``link``
(the channel to one endpoint), ``failures`` (gRPC's and etcd's errors as ours), ``options`` (the
URL), ``client`` (requests, failover, login), ``leases``, ``watching``, ``transactions``, ``codec``
(instances as entries), ``engine`` (the registry), ``keyvalue`` and ``skydns``.
"""

from meshkit.registry.etcd.engine import EtcdRegistry, open_etcd
from meshkit.registry.etcd.skydns import SkyDnsRegistry, open_skydns

__all__ = ["EtcdRegistry", "SkyDnsRegistry", "open_etcd", "open_skydns"]
