"""How long the jobs of payments keep trying."""

from datetime import UTC, datetime, timedelta

import pytest

from services.kit.channel import open_channel
from services.kit.db import Database
from services.kit.outbox import Jobs, Outbox
from services.payments import workers
from services.payments.clients import Alerts, Billing
from services.payments.domain.retry import RetrySchedule
from services.payments.settings import Settings
from services.payments.usecases.attempts import Attempts, RetryPolicy


@pytest.mark.parametrize("job", ["record_payment", "raise_signal"])
def test_a_service_that_is_away_for_a_day_hears_of_it_all_the_same(
    database: Database, settings: Settings, job: str
) -> None:
    policy = RetryPolicy(RetrySchedule({}), timedelta())
    attempts = Attempts(database, Outbox(database), {}, policy, lambda: datetime.now(UTC))
    jobs = Jobs()
    with open_channel(settings.billing_address, settings.kit) as channel:
        workers.register(jobs, attempts, Billing(channel), Alerts(channel))
    first, longest = jobs[job].backoff
    waits = (min(longest, first * 2 ** min(attempt, 30)) for attempt in range(jobs[job].max_attempts - 1))
    assert sum(waits, timedelta()) > timedelta(days=1)
