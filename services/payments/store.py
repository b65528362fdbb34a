"""All queries of the payments service, on the caller's connection."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from services.kit.money import Money
from services.payments.domain.method import PaymentMethod
from services.payments.domain.payment import Attempt, AttemptState, Payment, PaymentState
from services.payments.tables import ONE_PER_INVOICE, default_methods, payment_attempts, payment_methods, payments


@dataclass(frozen=True)
class PaymentFilter:
    """Which payments to list; an empty field allows all."""

    customer_id: str = ""
    invoice_id: str = ""


def add_method(connection: sa.Connection, method: PaymentMethod) -> bool:
    """Add a method; make it the customer's default if it asks for that or the customer has none yet.

    Returns:
        Whether it is the default.
    """
    connection.execute(
        payment_methods.insert().values(
            customer_id=method.customer_id,
            id=method.id,
            provider=method.provider,
            provider_token=method.provider_token,
            create_time=method.create_time,
        )
    )
    default = insert(default_methods).values(customer_id=method.customer_id, payment_method_id=method.id)
    if method.is_default:
        default = default.on_conflict_do_update(
            index_elements=[default_methods.c.customer_id], set_={"payment_method_id": method.id}
        )
    else:
        default = default.on_conflict_do_nothing()
    return connection.execute(default.returning(default_methods.c.customer_id)).first() is not None


def find_method(connection: sa.Connection, customer_id: str, method_id: str) -> PaymentMethod | None:
    """Return a customer's method."""
    query = _methods(customer_id).where(payment_methods.c.id == method_id)
    return next(map(_method, connection.execute(query).mappings()), None)


def find_default_method(connection: sa.Connection, customer_id: str) -> PaymentMethod | None:
    """Return the method that payments use when they name none."""
    query = _methods(customer_id).where(default_methods.c.payment_method_id == payment_methods.c.id)
    return next(map(_method, connection.execute(query).mappings()), None)


def list_methods(connection: sa.Connection, customer_id: str, after: str, limit: int) -> list[PaymentMethod]:
    """Return a customer's methods in the order of their creation, from behind the id `after`."""
    query = _methods(customer_id).where(payment_methods.c.id > after).order_by(payment_methods.c.id).limit(limit)
    return [_method(row) for row in connection.execute(query).mappings()]


def add_payment(connection: sa.Connection, payment: Payment) -> bool:
    """Add a payment that has no attempts yet; say False, and add nothing, if its invoice has one that is not FAILED."""
    added = connection.execute(
        insert(payments)
        .values(
            customer_id=payment.customer_id,
            id=payment.id,
            invoice_id=payment.invoice_id,
            amount=payment.amount.amount,
            currency=payment.amount.currency,
            payment_method_id=payment.payment_method_id,
            provider=payment.provider,
            create_time=payment.create_time,
            state=payment.state.value,
        )
        .on_conflict_do_nothing(index_elements=[payments.c.invoice_id], index_where=ONE_PER_INVOICE)
        .returning(payments.c.id)
    )
    return added.one_or_none() is not None


def save_payment(connection: sa.Connection, payment: Payment) -> None:
    """Write where a payment stands, and its last attempt: earlier ones have ended and never change."""
    connection.execute(
        payments.update()
        .where(payments.c.customer_id == payment.customer_id, payments.c.id == payment.id)
        .values(
            state=payment.state.value,
            next_attempt_time=payment.next_attempt_time,
            complete_time=payment.complete_time,
        )
    )
    attempt = payment.attempts[-1]
    outcome = {
        "state": attempt.state.value,
        "provider_reference": attempt.provider_reference,
        "failure_reason": attempt.failure_reason,
        "end_time": attempt.end_time,
    }
    key = {"customer_id": payment.customer_id, "payment_id": payment.id, "number": attempt.number}
    connection.execute(
        insert(payment_attempts)
        .values(**key, **outcome, idempotency_key=attempt.idempotency_key, start_time=attempt.start_time)
        .on_conflict_do_update(index_elements=list(key), set_=outcome)
    )


def lock_payment(connection: sa.Connection, customer_id: str, payment_id: str) -> Payment | None:
    """Return a payment; nobody else changes it before this transaction ends."""
    query = (
        sa.select(payments).where(payments.c.customer_id == customer_id, payments.c.id == payment_id).with_for_update()
    )
    return next(iter(_with_attempts(connection, connection.execute(query).mappings())), None)


def find_payment(connection: sa.Connection, payment_id: str) -> Payment | None:
    """Return a payment."""
    query = sa.select(payments).where(payments.c.id == payment_id)
    return next(iter(_with_attempts(connection, connection.execute(query).mappings())), None)


def list_payments(connection: sa.Connection, wanted: PaymentFilter, before: str | None, limit: int) -> list[Payment]:
    """Return payments, newest first, from behind the id `before`."""
    query = sa.select(payments).order_by(payments.c.id.desc()).limit(limit)
    if wanted.customer_id:
        query = query.where(payments.c.customer_id == wanted.customer_id)
    if wanted.invoice_id:
        query = query.where(payments.c.invoice_id == wanted.invoice_id)
    if before is not None:
        query = query.where(payments.c.id < before)
    return _with_attempts(connection, connection.execute(query).mappings())


def _methods(customer_id: str) -> sa.Select[Any]:
    is_default = sa.func.coalesce(default_methods.c.payment_method_id == payment_methods.c.id, sa.false())
    return (
        sa.select(payment_methods, is_default.label("is_default"))
        .outerjoin(default_methods, default_methods.c.customer_id == payment_methods.c.customer_id)
        .where(payment_methods.c.customer_id == customer_id)
    )


def _method(row: sa.RowMapping) -> PaymentMethod:
    return PaymentMethod(**row)


def _with_attempts(connection: sa.Connection, rows: Iterable[sa.RowMapping]) -> list[Payment]:
    found = list(rows)
    if not found:
        return []
    query = (
        sa.select(payment_attempts)
        .where(
            payment_attempts.c.customer_id.in_({row["customer_id"] for row in found}),
            payment_attempts.c.payment_id.in_([row["id"] for row in found]),
        )
        .order_by(payment_attempts.c.number)
    )
    attempts: dict[str, list[Attempt]] = {row["id"]: [] for row in found}
    for row in connection.execute(query).mappings():
        attempts[row["payment_id"]].append(_attempt(row))
    return [_payment(row, attempts[row["id"]]) for row in found]


def _payment(row: sa.RowMapping, attempts: Sequence[Attempt]) -> Payment:
    return Payment(
        id=row["id"],
        customer_id=row["customer_id"],
        invoice_id=row["invoice_id"],
        amount=Money(row["amount"], row["currency"]),
        payment_method_id=row["payment_method_id"],
        provider=row["provider"],
        create_time=row["create_time"],
        state=PaymentState(row["state"]),
        attempts=tuple(attempts),
        next_attempt_time=row["next_attempt_time"],
        complete_time=row["complete_time"],
    )


def _attempt(row: sa.RowMapping) -> Attempt:
    return Attempt(
        number=row["number"],
        state=AttemptState(row["state"]),
        idempotency_key=row["idempotency_key"],
        start_time=row["start_time"],
        provider_reference=row["provider_reference"],
        failure_reason=row["failure_reason"],
        end_time=row["end_time"],
    )
