"""What usage is told of customers: through the outbox, one customer's changes in their order."""

from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from google.protobuf import json_format

from meterscope.usage.v1 import limit_service_pb2
from services.billing.clients import Usage
from services.billing.convert import usage as convert
from services.billing.domain.customer import Customer
from services.billing.domain.plan import Plan
from services.billing.domain.subscription import PERIODS_AHEAD, Subscription
from services.billing.errors import CustomerNotFound
from services.billing.store import customers, plans, subscriptions
from services.kit.db import Database
from services.kit.outbox import Job, Outbox

PUT_JOB: Final = "put_entitlements"
EXTEND_JOB: Final = "extend_entitlements"

# Two periods ahead of the running one are never fewer days than this until the running one ends.
_EXTEND_WITHIN: Final = timedelta(days=45)
_SLICE: Final = 100


def put(
    conn: sa.Connection,
    outbox: Outbox,
    customer: Customer,
    *,
    subscription: Subscription | None = None,
    plan: Plan | None = None,
    now: datetime,
) -> None:
    """Have usage told of a customer as it is now; locks the customer until the transaction ends."""
    revision = customers.raise_revision(conn, customer.id)
    periods = subscription.schedule.around(now, PERIODS_AHEAD) if subscription else []
    request = convert.entitlements(customer, revision, plan, periods)
    # The message itself and no id: sent again under the same request id, it has to say the same.
    outbox.put(conn, job=PUT_JOB, payload={"request": _document(request)}, aggregate=customer.id)


class Entitlements:
    """The jobs that tell usage."""

    def __init__(self, database: Database, outbox: Outbox, usage: Usage) -> None:
        self._database = database
        self._outbox = outbox
        self._usage = usage

    def send(self, job: Job) -> None:
        """Tell usage."""
        request = json_format.ParseDict(job.payload["request"], limit_service_pb2.PutEntitlementsRequest())
        request.request_id = job.id
        self._usage.put_entitlements(request)

    def extend(self, now: datetime) -> int:
        """Tell usage of further periods where it knows too few ahead; return for how many subscriptions."""
        extended = 0
        while True:
            with self._database.transaction() as conn:
                found = subscriptions.to_extend(conn, before=now + _EXTEND_WITHIN, limit=_SLICE)
                for subscription in found:
                    self._extend(conn, subscription, now)
            extended += len(found)
            if len(found) < _SLICE:
                return extended

    def _extend(self, conn: sa.Connection, subscription: Subscription, now: datetime) -> None:
        customer = customers.get(conn, subscription.customer_id)
        if customer is None:
            raise CustomerNotFound(subscription.customer_id)
        plan = plans.version(conn, subscription.plan_id, subscription.plan_version)
        put(conn, self._outbox, customer, subscription=subscription, plan=plan, now=now)
        until = subscription.schedule.around(now, PERIODS_AHEAD)[-1].end
        subscriptions.mark_entitled(conn, subscription.id, until)


def _document(request: limit_service_pb2.PutEntitlementsRequest) -> dict[str, Any]:
    return json_format.MessageToDict(request, preserving_proto_field_name=True)
