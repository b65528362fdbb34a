"""Asking a process whether it can do its work. Each answers within about half a second."""

import http.client
from typing import Final

_SECONDS: Final = 0.5


def grpc_serves(address: str) -> bool:
    """Say whether the gRPC server at host:port reports SERVING (grpc.health.v1)."""
    import grpc
    from grpc_health.v1 import health_pb2

    # A subchannel of its own: a shared one would wait long before it connects again.
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))
    with grpc.insecure_channel(address, options=options) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            answer = check(health_pb2.HealthCheckRequest(), timeout=_SECONDS)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def http_ready(address: str) -> bool:
    """Say whether the gateway at host:port is ready."""
    connection = http.client.HTTPConnection(address, timeout=_SECONDS)
    try:
        connection.request("GET", "/health/ready")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def postgres_problem(url: str) -> str | None:
    """Return why a PostgreSQL URL cannot be connected to, None when it can."""
    import psycopg

    try:
        psycopg.connect(url.replace("+psycopg", "", 1), connect_timeout=2).close()
    except psycopg.Error as error:
        return str(error).strip()
    return None


def redis_problem(url: str) -> str | None:
    """Return why a Redis URL cannot be connected to, None when it can."""
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    try:
        with redis.Redis.from_url(url, socket_timeout=2, retry=Retry(NoBackoff(), 0)) as client:
            client.ping()
    except (redis.RedisError, ValueError) as error:
        return str(error)
    return None
