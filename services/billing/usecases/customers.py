"""Customers."""

from collections.abc import Callable
from datetime import datetime

import sqlalchemy as sa

from meterscope.billing.v1 import customer_service_pb2 as pb
from services.billing.convert import customer as convert
from services.billing.domain import customer as rules
from services.billing.domain.customer import Customer, CustomerState
from services.billing.errors import CustomerKeyTaken, CustomerNotFound
from services.billing.metrics import Instruments
from services.billing.store import customers
from services.billing.usecases import entitlements
from services.kit import paging
from services.kit.db import Database, after_commit
from services.kit.idempotency import once
from services.kit.ids import new_id
from services.kit.outbox import Outbox


class Customers:
    """Creates and shows customers."""

    def __init__(
        self, database: Database, outbox: Outbox, instruments: Instruments, clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._outbox = outbox
        self._instruments = instruments
        self._clock = clock

    def create(self, request: pb.CreateCustomerRequest) -> pb.Customer:
        """Create a customer and have usage told of it.

        Raises:
            InvalidArgument: a field is wrong.
            CustomerKeyTaken: the external key is another's.
        """
        with self._database.transaction() as conn:
            return once(
                conn,
                method="CreateCustomer",
                request_id=request.request_id,
                request=request,
                response_type=pb.Customer,
                act=lambda: convert.customer(self._create(conn, request.customer)),
            )

    def get(self, customer_id: str) -> Customer:
        """Return a customer. Raises CustomerNotFound."""
        with self._database.transaction() as conn:
            found = customers.get(conn, customer_id)
        if found is None:
            raise CustomerNotFound(customer_id)
        return found

    def page(self, *, external_key: str, page_size: int, page_token: str) -> tuple[list[Customer], str]:
        """Return a page of customers in the order of their creation, and the next page's token."""
        filters = {"external_key": external_key}
        size = paging.page_size(page_size)
        after = paging.decode_token(page_token, filters) or [""]
        with self._database.transaction() as conn:
            found = customers.page(conn, external_key=external_key, after=after[0], limit=size + 1)
        return found[:size], paging.encode_token([found[size - 1].id], filters) if len(found) > size else ""

    def _create(self, conn: sa.Connection, wanted: pb.Customer) -> Customer:
        time_zone = wanted.time_zone or "UTC"
        rules.check(
            external_key=wanted.external_key,
            display_name=wanted.display_name,
            currency=wanted.currency,
            time_zone=time_zone,
        )
        now = self._clock()
        customer = Customer(
            id=new_id("cus"),
            external_key=wanted.external_key,
            display_name=wanted.display_name,
            state=CustomerState.ACTIVE,
            currency=wanted.currency,
            time_zone=time_zone,
            revision=0,
            create_time=now,
        )
        if not customers.add(conn, customer):
            raise CustomerKeyTaken(customer.external_key)
        entitlements.put(conn, self._outbox, customer, now=now)
        after_commit(conn, f"created {customer.id}", self._instruments.customer_created)
        return customer
