"""How both ends of a call tell who they are: header names shared by clients and servers.

A registry lags behind the network, so an address may by now belong to another process. The
caller names the instance it means; whoever else receives the request refuses it unhandled (421
over HTTP, UNAVAILABLE over gRPC), and every answer names who gave it.
"""

from __future__ import annotations

from collections.abc import Mapping

# On requests: the id of the instance that the caller means.
TARGET = "x-meshkit-target"
# On answers: who answered.
SERVICE = "x-meshkit-service"
INSTANCE = "x-meshkit-instance"
# On answers of an instance that is leaving, with its id: call another one from now on.
DRAINING = "x-meshkit-draining"
# On a refusal of a request that was too much, with the id of the instance: it was not handled.
SHED = "x-meshkit-shed"
# On an error that comes from further down and had its retries there: repeating it up here would
# multiply the load below. (B. Beyer et al., Site Reliability Engineering, 2016, chapter 22.)
NO_RETRY = "x-meshkit-no-retry"
# On a refusal of a request meant for somebody else (gRPC; over HTTP the status 421 says it).
MISDIRECTED = "x-meshkit-misdirected"

# Metadata of instances that meshkit runs; those of other origin can't be asked for identity.
MARK = "meshkit"


def proves_identity(metadata: Mapping[str, str]) -> bool:
    """Whether an instance with this metadata names itself on every answer."""
    return MARK in metadata
