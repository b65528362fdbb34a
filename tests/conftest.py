"""Real servers for every test: one PostgreSQL and one Valkey a session, a fresh database for each test module."""

import itertools
import os
from collections.abc import Iterator

import psycopg
import pytest
import redis
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from psycopg import sql

from services.kit.embedded import EmbeddedPostgres, EmbeddedValkey, start_postgres, start_valkey

_VALKEY_DATABASES = 16
# A developer's own: no test reports there.
os.environ.pop("SENTRY_DSN", None)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL server that loses nothing to a kill, but does not wait for the disk."""
    server = start_postgres(tmp_path_factory.mktemp("postgres"), durable=False)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    server = start_valkey(tmp_path_factory.mktemp("valkey"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def numbers() -> Iterator[int]:
    """Numbers that no other module of the session has had."""
    return itertools.count(1)


@pytest.fixture(scope="module")
def database_url(postgres: EmbeddedPostgres, numbers: Iterator[int]) -> str:
    """An empty database, owned by the role `usage`: the one that has what any service's role has."""
    name = f"test_{next(numbers)}"
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} OWNER usage").format(sql.Identifier(name)))
    return postgres.url(name, "usage")


@pytest.fixture(scope="module")
def redis_url(valkey: EmbeddedValkey, numbers: Iterator[int]) -> str:
    """An empty database of Valkey."""
    url = valkey.url(next(numbers) % _VALKEY_DATABASES)
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url


@pytest.fixture(scope="session")
def tracer_provider() -> TracerProvider:
    """The session's tracer provider: OpenTelemetry lets a process set it once."""
    provider = TracerProvider()
    trace.set_tracer_provider(provider)
    return provider


@pytest.fixture
def spans(tracer_provider: TracerProvider) -> Iterator[InMemorySpanExporter]:
    """The spans that ended during the test."""
    exporter = InMemorySpanExporter()
    tracer_provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield exporter
    exporter.shutdown()


@pytest.fixture(scope="session")
def metric_reader() -> InMemoryMetricReader:
    """Reads the session's metrics: OpenTelemetry lets a process set their provider once."""
    reader = InMemoryMetricReader()
    metrics.set_meter_provider(MeterProvider([reader]))
    return reader
