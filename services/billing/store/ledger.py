"""The ledger: written by postings, read as entries, accounts and sums."""

from datetime import datetime

import sqlalchemy as sa

from services.billing.domain.ledger import Account, Entry, Posting
from services.billing.tables import ledger_entries, ledger_transactions
from services.kit.ids import new_id


def post(conn: sa.Connection, posting: Posting, now: datetime) -> None:
    """Write a posting; the database judges at the commit that it adds up to zero."""
    transaction_id = new_id("ltx")
    conn.execute(
        sa.insert(ledger_transactions).values(
            customer_id=posting.customer_id,
            id=transaction_id,
            description=posting.description,
            invoice_id=posting.invoice_id,
            payment_id=posting.payment_id,
            create_time=now,
        )
    )
    entries = [
        {
            "customer_id": posting.customer_id,
            "id": new_id("ent"),
            "transaction_id": transaction_id,
            "account": leg.account,
            "currency": posting.currency,
            "amount": leg.amount,
        }
        for leg in posting.legs
    ]
    conn.execute(sa.insert(ledger_entries), entries)


def accounts(conn: sa.Connection, *, after: tuple[str, str], limit: int | None) -> list[Account]:
    """Return accounts by id and currency, behind `after`; all when `limit` is None."""
    entries = ledger_entries.c
    amount = entries.amount
    query = (
        sa.select(
            entries.account,
            entries.currency,
            sa.func.coalesce(sa.func.sum(amount).filter(amount > 0), 0),
            sa.func.coalesce(-sa.func.sum(amount).filter(amount < 0), 0),
        )
        .where(sa.tuple_(entries.account, entries.currency) > sa.tuple_(*after))
        .group_by(entries.account, entries.currency)
        .order_by(entries.account, entries.currency)
        .limit(limit)
    )
    return [Account(*row) for row in conn.execute(query)]


def entries(conn: sa.Connection, *, account: str, invoice_id: str, before: str, limit: int) -> list[Entry]:
    """Return entries, newest first, older than the id `before` (all when empty); empty filters select nothing out."""
    legs, transactions = ledger_entries.c, ledger_transactions.c
    query = (
        sa.select(
            legs.id,
            legs.transaction_id,
            legs.account,
            legs.amount,
            legs.currency,
            transactions.description,
            transactions.invoice_id,
            transactions.payment_id,
            transactions.create_time,
        )
        .join_from(
            ledger_entries,
            ledger_transactions,
            (transactions.customer_id == legs.customer_id) & (transactions.id == legs.transaction_id),
        )
        .order_by(legs.id.desc())
        .limit(limit)
    )
    if before:
        query = query.where(legs.id < before)
    if account:
        query = query.where(legs.account == account)
    if invoice_id:
        query = query.where(transactions.invoice_id == invoice_id)
    return [Entry(*row) for row in conn.execute(query)]


def unbalanced_transactions(conn: sa.Connection) -> int:
    """Return how many transactions do not add up to zero in a currency."""
    legs = ledger_entries.c
    crooked = (
        sa.select(legs.transaction_id)
        .group_by(legs.customer_id, legs.transaction_id, legs.currency)
        .having(sa.func.sum(legs.amount) != 0)
        .subquery()
    )
    return int(conn.execute(sa.select(sa.func.count()).select_from(crooked)).scalar_one())
