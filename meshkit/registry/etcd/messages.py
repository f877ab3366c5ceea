"""etcd's messages, as far as we use them, made at run time.

There is no generated code on purpose. It would have to enter ``rpc.proto``, ``kv.proto`` and
``auth.proto`` into protobuf's common pool, where a user's own file of such a name then could not
be imported any more; ours are in a pool of their own.

Names and numbers are those of https://github.com/etcd-io/etcd/tree/main/api. Enumerations are
plain numbers here, which is the same on the wire.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

PACKAGE = "meshkit.etcd"  # the name of a message is not sent

# Each message's fields as ``name:type=number``: ``*`` marks a list, ``|`` one of which only one
# is set (a message has at most one such group).
MESSAGES = {
    "KeyValue": "key:bytes=1 create_revision:int64=2 mod_revision:int64=3 value:bytes=5 "
    "lease:int64=6",
    "Event": "type:int32=1 kv:KeyValue=2",
    "Header": "cluster_id:uint64=1 member_id:uint64=2 revision:int64=3",
    "RangeRequest": "key:bytes=1 range_end:bytes=2 limit:int64=3 keys_only:bool=8",
    "RangeResponse": "header:Header=1 kvs:KeyValue*=2",
    "PutRequest": "key:bytes=1 value:bytes=2 lease:int64=3",
    "PutResponse": "header:Header=1",
    "DeleteRangeRequest": "key:bytes=1 range_end:bytes=2",
    "DeleteRangeResponse": "header:Header=1 deleted:int64=2",
    "Compare": "result:int32=1 target:int32=2 key:bytes=3 "
    "create_revision:int64|=5 mod_revision:int64|=6 lease:int64|=8",
    "RequestOp": "request_range:RangeRequest|=1 request_put:PutRequest|=2 "
    "request_delete_range:DeleteRangeRequest|=3",
    "ResponseOp": "response_range:RangeResponse|=1 response_put:PutResponse|=2 "
    "response_delete_range:DeleteRangeResponse|=3",
    "TxnRequest": "compare:Compare*=1 success:RequestOp*=2 failure:RequestOp*=3",
    "TxnResponse": "header:Header=1 succeeded:bool=2 responses:ResponseOp*=3",
    "WatchCreateRequest": "key:bytes=1 range_end:bytes=2 start_revision:int64=3",
    "WatchRequest": "create_request:WatchCreateRequest|=1",
    "WatchResponse": "header:Header=1 watch_id:int64=2 created:bool=3 canceled:bool=4 "
    "compact_revision:int64=5 cancel_reason:string=6 events:Event*=11",
    "LeaseGrantRequest": "TTL:int64=1 ID:int64=2",
    "LeaseGrantResponse": "header:Header=1 ID:int64=2 TTL:int64=3 error:string=4",
    "LeaseRevokeRequest": "ID:int64=1",
    "LeaseRevokeResponse": "header:Header=1",
    "LeaseKeepAliveRequest": "ID:int64=1",
    "LeaseKeepAliveResponse": "header:Header=1 ID:int64=2 TTL:int64=3",
    "AuthenticateRequest": "name:string=1 password:string=2",
    "AuthenticateResponse": "header:Header=1 token:string=2",
}
# The values of enumerations.
PUT = 0  # Event.type; 1 is a deletion
EQUAL = 0  # Compare.result
CREATE, MOD, LEASE = 1, 2, 4  # Compare.target


@dataclasses.dataclass(frozen=True, slots=True)
class Rpc:
    """A remote call: its path, and the names of its messages."""

    path: str
    request: str
    response: str

    @property
    def name(self) -> str:
        """What a person calls it."""
        return self.path.rpartition("/")[2]


def _rpc(service: str, name: str, messages: str = "") -> Rpc:
    messages = messages or name
    return Rpc(f"/etcdserverpb.{service}/{name}", f"{messages}Request", f"{messages}Response")


RANGE = _rpc("KV", "Range")
TXN = _rpc("KV", "Txn")
WATCH = _rpc("Watch", "Watch")
GRANT = _rpc("Lease", "LeaseGrant")
REVOKE = _rpc("Lease", "LeaseRevoke")
KEEP_ALIVE = _rpc("Lease", "LeaseKeepAlive")
AUTHENTICATE = _rpc("Auth", "Authenticate")


def _file() -> FileDescriptorProto:
    file = FileDescriptorProto(name="meshkit/etcd.proto", package=PACKAGE, syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field in fields.split():
            _add_field(message, field)
    return file


def _add_field(message: DescriptorProto, text: str) -> None:
    declared, _, number = text.partition("=")
    name, _, kind = declared.partition(":")
    field = message.field.add(name=name, number=int(number))
    field.label = (
        FieldDescriptorProto.LABEL_REPEATED
        if kind.endswith("*")
        else FieldDescriptorProto.LABEL_OPTIONAL
    )
    if kind.endswith("|"):
        if not message.oneof_decl:
            message.oneof_decl.add(name="one")
        field.oneof_index = 0
    kind = kind.rstrip("*|")
    if kind in MESSAGES:
        field.type = FieldDescriptorProto.TYPE_MESSAGE
        field.type_name = f".{PACKAGE}.{kind}"
    else:
        field.type = FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")


def _classes() -> dict[str, Any]:
    pool = DescriptorPool()
    file = _file()
    pool.Add(file)
    return {
        name: GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in MESSAGES
    }


#: the messages' classes by name; a class made at run time has no static type
CLASSES: dict[str, Any] = _classes()


def make(message: str, /, **fields: Any) -> Any:
    """Return a message of this name."""
    return CLASSES[message](**fields)


def prefix_end(prefix: bytes) -> bytes:
    """Return the end of the range of all keys that begin with ``prefix``.

    https://etcd.io/docs/v3.5/learning/api/#key-ranges
    """
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else b"\0"
