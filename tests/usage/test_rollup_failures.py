"""A turn of the rollup that fails is counted by whose usage it holds up; once it comes through nothing is lost."""

from collections import Counter

import psycopg
import pytest
from eventually import eventually
from measured_worker import measured_worker, points
from usage_harness import Client, event

from services.usage.settings import Settings

pytestmark = pytest.mark.usefixtures("meters")

ERRORS = "billing.usage.increment.errors"


def test_failed_turns_name_the_customers_and_meters_that_wait(
    client: Client, migrated: Settings, sql: psycopg.Connection[tuple[object, ...]]
) -> None:
    one, another, idle = (client.put_customer() for _ in range(3))
    # What no total may be: each turn that adds events fails, as one would whose numbers the database refuses.
    sql.execute("ALTER TABLE bucket_totals ADD CONSTRAINT refused CHECK (count < 0) NOT VALID")
    client.ingest(event(one), event(one), event(another), event(another, type="not.metered"))
    with measured_worker(migrated) as reader:

        def counted() -> Counter[tuple[object, ...]]:
            return Counter({tuple(labels.values()): int(value) for labels, value in points(reader, ERRORS)})

        eventually(lambda: counted()[one, "requests", "data"] > 1)
        found = counted()
        # Started at 0, for failures of which nobody's usage is known.
        assert {key[2]: found[key] for key in found if key[0] == "all"} == {"unavailable": 0, "data": 0, "internal": 0}
        # Both meters look at events of this type, also of those without bytes.
        waiting = {(customer, meter) for customer in (one, another) for meter in ("requests", "bytes")}
        assert {key[:2] for key in found if key[0] != "all"} == waiting
        assert not [key for key in found if key[0] == idle]
        sql.execute("ALTER TABLE bucket_totals DROP CONSTRAINT refused")
        eventually(lambda: client.total(one, "requests") == 2)

        def added() -> dict[tuple[object, ...], float]:
            return {tuple(labels.values()): value for labels, value in points(reader, "billing.usage.increment")}

        # Counted when the turn has come through, whatever was tried before.
        eventually(lambda: added() == {(one, "requests"): 2, (another, "requests"): 1})
