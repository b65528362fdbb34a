"""What a failed call says beside its status: `google.rpc` details."""

from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from grpc_status import rpc_status

from meterscope.client.errors import CallFailed


def asked_delay(error: grpc.RpcError) -> float:
    """Return the seconds that the server asks to wait (google.rpc.RetryInfo), 0 if it does not."""
    call: Any = error
    status = rpc_status.from_call(call)
    for detail in status.details if status else ():
        info = RetryInfo()
        if detail.Unpack(info):
            delay: Duration = info.retry_delay
            return max(0.0, delay.seconds + delay.nanos / 1e9)
    return 0.0


def failed(error: grpc.RpcError) -> CallFailed:
    """Return the client's own error for a call that failed."""
    call: Any = error
    status = rpc_status.from_call(call)
    info = ErrorInfo()
    for detail in status.details if status else ():
        detail.Unpack(info)
    return CallFailed(
        call.code().name,
        call.details() or "no more is known",
        reason=info.reason,
        metadata=dict(info.metadata),
        retry_after=asked_delay(error),
    )
