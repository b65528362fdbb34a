"""The sandbox's own books. They stand for a remote provider's: in tables that nothing else of the service reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from services.kit.db import Database
from services.kit.money import Money

metadata: Final = sa.MetaData()
charges: Final = sa.Table(
    "sandbox_charges",
    metadata,
    sa.Column("idempotency_key", sa.Text, primary_key=True),
    sa.Column("id", sa.Text, nullable=False),
    sa.Column("reference", sa.Text, nullable=False),
    sa.Column("token", sa.Text, nullable=False),
    sa.Column("amount", sa.Numeric, nullable=False),
    sa.Column("currency", sa.Text, nullable=False),
    sa.Column("decline_reason", sa.Text, nullable=False),
    sa.Column("create_time", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
    sa.Index("sandbox_charges_by_reference", "reference"),
)


@dataclass(frozen=True)
class Charge:
    """One entry of the sandbox's books. `decline_reason` is empty where the money moved."""

    id: str
    idempotency_key: str
    reference: str
    token: str
    amount: Money
    decline_reason: str


class SandboxBooks:
    """Reads and writes the books, each statement by itself: a remote provider knows nothing of our transactions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, charge: Charge) -> bool:
        """Write a charge unless its key is there already; say whether it was written."""
        row = {
            "idempotency_key": charge.idempotency_key,
            "id": charge.id,
            "reference": charge.reference,
            "token": charge.token,
            "amount": charge.amount.amount,
            "currency": charge.amount.currency,
            "decline_reason": charge.decline_reason,
        }
        statement = insert(charges).values(row).on_conflict_do_nothing().returning(charges.c.id)
        with self._database.autocommit() as connection:
            return connection.execute(statement).first() is not None

    def by_key(self, idempotency_key: str) -> Charge | None:
        """Return the charge of a key."""
        query = sa.select(charges).where(charges.c.idempotency_key == idempotency_key)
        with self._database.autocommit() as connection:
            row = connection.execute(query).mappings().one_or_none()
        return None if row is None else _charge(row)

    def by_reference(self, reference: str) -> Sequence[Charge]:
        """Return the charges of a payment, refused ones included, first to last."""
        query = sa.select(charges).where(charges.c.reference == reference).order_by(charges.c.create_time, charges.c.id)
        with self._database.autocommit() as connection:
            return [_charge(row) for row in connection.execute(query).mappings()]


def _charge(row: sa.RowMapping) -> Charge:
    return Charge(
        id=row["id"],
        idempotency_key=row["idempotency_key"],
        reference=row["reference"],
        token=row["token"],
        amount=Money(row["amount"], row["currency"]),
        decline_reason=row["decline_reason"],
    )
