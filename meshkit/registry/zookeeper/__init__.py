"""``zookeeper://HOST:PORT,HOST:PORT/PATH``: Apache ZooKeeper, through kazoo.

Parts, from the wire up: ``handler`` (kazoo's threads and sockets), ``failures`` (its errors as
ours), ``options`` (the URL), ``session`` (one ZooKeeper session on an event loop), ``sessions``
(the one after the other), ``folder`` (a node's children, followed), ``codec`` (instances as those
of Apache Curator), ``kv`` (keys) and ``engine`` (the registry).

Layout, under the URL's path (``/meshkit`` when it has none):

- ``services/<service>/<id>``: an instance, an ephemeral node in the form of Curator's service
  discovery, so that programs on the JVM find ours and we find theirs. Its ``payload`` stays null:
  Curator casts it to a class that each reader chooses, and fails on every other, whereas null
  fits all and an unknown property is ignored (Curator's ``JsonInstanceSerializer``). So what
  Curator has no field for is in a property of its own, ``meshkit``.
- ``kv/<key>``: a key, with ``/`` written as ``%2F``, so that a prefix can be any text and no
  node is there only because others are below it.
"""

from meshkit.registry.zookeeper.opening import open_zookeeper

__all__ = ["open_zookeeper"]
