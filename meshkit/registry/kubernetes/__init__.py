"""``kubernetes://[NAMESPACE]``: services found by their EndpointSlices; read-only.

Kubernetes lists the pods behind a Service by itself, with their readiness, so nothing is
registered. Parts, from the wire up: ``failures`` (what goes wrong, as our errors), ``options`` (the
URL and what a pod is told about its cluster), ``api`` (requests to the API server), ``following``
(a list, then its changes), ``instances`` (what slices mean to us) and ``engine`` (the registry).
"""

from meshkit.registry.kubernetes.engine import KubernetesRegistry, open_kubernetes
from meshkit.registry.kubernetes.options import KubernetesOptions

__all__ = ["KubernetesOptions", "KubernetesRegistry", "open_kubernetes"]
