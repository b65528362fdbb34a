"""Which servers are embedded, and what every process is told."""

import pytest

from meterscope.supervisor.databases import Given
from meterscope.supervisor.errors import SupervisorError
from meterscope.supervisor.ports import ports
from services.kit.embedded import EmbeddedPostgres, EmbeddedValkey


def test_nothing_given_embeds_both() -> None:
    assert Given.read({}).embedded == ("postgres", "valkey")


def test_a_database_for_all_services_needs_no_embedded_postgresql() -> None:
    assert Given.read({"DATABASE_URL": "postgresql://host/one"}).embedded == ("valkey",)
    assert Given.read({"DATABASE_URL": "postgresql://host/one", "REDIS_URL": "redis://host"}).embedded == ()


def test_a_database_for_one_service_leaves_the_others_embedded(postgres: EmbeddedPostgres) -> None:
    given = Given.read({"USAGE_DATABASE_URL": "postgresql://host/usage", "REDIS_URL": "redis://host"})
    assert given.embedded == ("postgres",)
    urls = given.urls(postgres.folder, {**ports(9000), "postgres": postgres.port})
    assert urls == {
        "USAGE_DATABASE_URL": "postgresql://host/usage",
        "BILLING_DATABASE_URL": postgres.url("billing", "billing"),
        "PAYMENTS_DATABASE_URL": postgres.url("payments", "payments"),
        "ALERTS_DATABASE_URL": postgres.url("alerts", "alerts"),
        "REDIS_URL": "redis://host",
    }


def test_a_services_own_variable_goes_before_the_one_for_all() -> None:
    given = Given.read({"DATABASE_URL": "postgresql://host/all", "BILLING_DATABASE_URL": "postgresql://host/billing"})
    assert given.databases["billing"] == ("BILLING_DATABASE_URL", "postgresql://host/billing")
    assert given.databases["usage"] == ("DATABASE_URL", "postgresql://host/all")


def test_servers_that_answer_pass_the_check(postgres: EmbeddedPostgres, valkey: EmbeddedValkey) -> None:
    Given.read({"DATABASE_URL": postgres.url(), "REDIS_URL": valkey.url()}).check()


def test_a_server_that_cannot_be_reached_is_named_by_its_variable_without_its_password(
    postgres: EmbeddedPostgres,
) -> None:
    wrong = postgres.url().replace("postgres:", "postgres:guessed", 1)
    with pytest.raises(
        SupervisorError, match=r"DATABASE_URL: cannot connect: .*password authentication failed"
    ) as refused:
        Given.read({"DATABASE_URL": wrong}).check()
    assert "guessed" not in str(refused.value)
