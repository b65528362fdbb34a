"""Keeping the means by which customers pay."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime

from meterscope.payments.v1 import payment_method_service_pb2 as pb
from services.kit.db import Database
from services.kit.idempotency import once
from services.kit.ids import new_id
from services.payments import convert, store
from services.payments.domain.method import NewPaymentMethod, PaymentMethod
from services.payments.errors import PaymentMethodNotFound, unknown_provider
from services.payments.providers.base import Provider


class PaymentMethods:
    """Adds and shows payment methods."""

    def __init__(self, database: Database, providers: Mapping[str, Provider], clock: Callable[[], datetime]) -> None:
        self._database = database
        self._providers = providers
        self._clock = clock

    def create(self, wanted: NewPaymentMethod, request: pb.CreatePaymentMethodRequest) -> pb.PaymentMethod:
        """Add a method; the customer's first one becomes the default.

        Args:
            wanted: the method.
            request: what was asked, to know it again by its request id.

        Raises:
            InvalidArgument: no such provider, the provider does not know the token, or the request id came with another
                method before.
        """
        provider = self._providers.get(wanted.provider)
        if provider is None:
            raise unknown_provider("payment_method.provider", sorted(self._providers))
        provider.check_token(wanted.provider_token, "payment_method.provider_token")
        method = PaymentMethod(
            id=new_id("pm"),
            customer_id=wanted.customer_id,
            provider=wanted.provider,
            provider_token=wanted.provider_token,
            is_default=wanted.is_default,
            create_time=self._clock(),
        )
        with self._database.transaction() as conn:
            return once(
                conn,
                method="PaymentMethodService.CreatePaymentMethod",
                request_id=request.request_id,
                request=request,
                response_type=pb.PaymentMethod,
                act=lambda: convert.method_message(replace(method, is_default=store.add_method(conn, method))),
            )

    def get(self, customer_id: str, method_id: str) -> PaymentMethod:
        """Return a customer's method.

        Raises:
            PaymentMethodNotFound: the customer has no such method.
        """
        with self._database.transaction() as conn:
            method = store.find_method(conn, customer_id, method_id)
        if method is None:
            raise PaymentMethodNotFound(f"customer {customer_id} has no payment method {method_id}")
        return method

    def list(self, customer_id: str, after: str, limit: int) -> list[PaymentMethod]:
        """Return a customer's methods in the order of their creation, from behind the id `after`."""
        with self._database.transaction() as conn:
            return store.list_methods(conn, customer_id, after, limit)
