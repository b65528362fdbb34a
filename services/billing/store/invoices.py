"""Invoices, their lines and their numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from services.billing.domain.invoice import Invoice, InvoiceState
from services.billing.domain.line import InvoiceLine, LineKind
from services.billing.domain.numbering import Seller
from services.billing.domain.period import Period
from services.billing.domain.pricing import TierAmount
from services.billing.tables import invoice_lines, invoice_series, invoices

# Fields that are a column of the same name and type.
_COLUMNS = Invoice.__dataclass_fields__.keys() - {"state", "period", "lines"}
_LINE_COLUMNS = InvoiceLine.__dataclass_fields__.keys() - {"id", "kind", "tiers", "sample_trace_ids", "period"}


@dataclass(frozen=True)
class ChargedSum:
    """What the lines of all invoices charged for one component in one period."""

    plan_id: str
    plan_version: int
    component_id: str
    period: Period
    quantity: Decimal
    amount: Decimal
    event_count: int


def exists(conn: sa.Connection, subscription_id: str, period: Period) -> bool:
    """Say whether the period has its invoice."""
    query = sa.select(invoices.c.id).where(
        invoices.c.subscription_id == subscription_id, invoices.c.period_start == period.start
    )
    return conn.execute(query).one_or_none() is not None


def add_draft(conn: sa.Connection, invoice: Invoice, seller: Seller) -> None:
    """Insert a draft with its lines."""
    conn.execute(
        sa.insert(invoices).values(
            **{name: getattr(invoice, name) for name in _COLUMNS},
            seller=seller.id,
            state=invoice.state.value,
            period_start=invoice.period.start,
            period_end=invoice.period.end,
        )
    )
    conn.execute(sa.insert(invoice_lines), [_line_values(invoice, line) for line in invoice.lines])


def next_number(conn: sa.Connection, seller: Seller, now: datetime) -> str:
    """Take the next number of the seller's fiscal year; the series stays locked until the transaction ends."""
    year = seller.fiscal_year(now)
    statement = (
        insert(invoice_series)
        .values(seller=seller.id, fiscal_year=year, last=1)
        .on_conflict_do_update(
            index_elements=[invoice_series.c.seller, invoice_series.c.fiscal_year],
            set_={"last": invoice_series.c.last + 1},
        )
        .returning(invoice_series.c.last)
    )
    return seller.number(year, conn.execute(statement).scalar_one())


def finalize(conn: sa.Connection, invoice: Invoice) -> None:
    """Freeze a draft: from here on the database refuses any change of it but of where it stands."""
    conn.execute(
        _at(invoice).values(
            number=invoice.number,
            state=invoice.state.value,
            finalize_time=invoice.finalize_time,
            paid_time=invoice.paid_time,
        )
    )


def record_payment(conn: sa.Connection, invoice: Invoice) -> None:
    """Write the state, the amount due and the payment of an invoice."""
    conn.execute(
        _at(invoice).values(
            state=invoice.state.value,
            amount_due=invoice.amount_due,
            payment_id=invoice.payment_id,
            paid_time=invoice.paid_time,
        )
    )


def name_payment(conn: sa.Connection, invoice_id: str, payment_id: str) -> None:
    """Record the payment that collects an invoice, unless one is recorded."""
    conn.execute(
        sa.update(invoices)
        .where(invoices.c.id == invoice_id, invoices.c.payment_id == "")
        .values(payment_id=payment_id)
    )


def charged(conn: sa.Connection, customer_id: str, period_ends: Sequence[datetime]) -> list[ChargedSum]:
    """Return what was charged for metered components in the customer's periods with these ends, period by period."""
    lines = invoice_lines.c
    first = sa.func.min(lines.position)
    query = (
        sa.select(
            sa.func.min(invoices.c.plan_id).filter(lines.period_end == invoices.c.period_end).label("plan_id"),
            sa.func.min(invoices.c.plan_version)
            .filter(lines.period_end == invoices.c.period_end)
            .label("plan_version"),
            lines.component_id,
            lines.period_start,
            lines.period_end,
            sa.func.sum(lines.quantity).label("quantity"),
            sa.func.sum(lines.amount).label("amount"),
            sa.func.sum(lines.event_count).label("event_count"),
        )
        .join_from(
            invoice_lines,
            invoices,
            (invoices.c.customer_id == lines.customer_id) & (invoices.c.id == lines.invoice_id),
        )
        .where(
            lines.customer_id == customer_id,
            lines.period_end.in_(period_ends),
            lines.kind != LineKind.SUBSCRIPTION.value,
        )
        .group_by(lines.component_id, lines.period_start, lines.period_end)
        .order_by(lines.period_end, first, lines.component_id)
    )
    return [
        ChargedSum(
            row.plan_id,
            row.plan_version,
            row.component_id,
            Period(row.period_start, row.period_end),
            row.quantity,
            row.amount,
            int(row.event_count),
        )
        for row in conn.execute(query)
    ]


def priced_by(conn: sa.Connection, invoice: Invoice, line: InvoiceLine) -> tuple[str, int]:
    """Return the plan and version by which a line is priced: those of the invoice of the line's own period."""
    query = sa.select(invoices.c.plan_id, invoices.c.plan_version).where(
        invoices.c.customer_id == invoice.customer_id,
        invoices.c.period_start == line.period.start,
        invoices.c.period_end == line.period.end,
    )
    row = conn.execute(query).one()
    return row.plan_id, row.plan_version


def get(conn: sa.Connection, invoice_id: str, *, lock: bool = False) -> Invoice | None:
    """Return the invoice with its lines, locked until the transaction ends if asked for."""
    query = sa.select(invoices).where(invoices.c.id == invoice_id)
    found = _invoices(conn, query.with_for_update() if lock else query)
    return found[0] if found else None


def page(
    conn: sa.Connection, *, customer_id: str, bill_run_id: str, state: InvoiceState | None, before: str, limit: int
) -> list[Invoice]:
    """Return invoices, newest first, older than the id `before` (all when empty); empty filters select nothing out."""
    query = sa.select(invoices).order_by(invoices.c.id.desc()).limit(limit)
    if before:
        query = query.where(invoices.c.id < before)
    if customer_id:
        query = query.where(invoices.c.customer_id == customer_id)
    if bill_run_id:
        query = query.where(invoices.c.bill_run_id == bill_run_id)
    if state is not None:
        query = query.where(invoices.c.state == state.value)
    return _invoices(conn, query)


def _at(invoice: Invoice) -> sa.Update:
    return sa.update(invoices).where(invoices.c.customer_id == invoice.customer_id, invoices.c.id == invoice.id)


def _line_values(invoice: Invoice, line: InvoiceLine) -> dict[str, Any]:
    return {
        **{name: getattr(line, name) for name in _LINE_COLUMNS},
        "customer_id": invoice.customer_id,
        "invoice_id": invoice.id,
        "position": int(line.id),
        "kind": line.kind.value,
        "sample_trace_ids": list(line.sample_trace_ids),
        "tiers": [_tier_document(tier) for tier in line.tiers],
        "period_start": line.period.start,
        "period_end": line.period.end,
    }


def _tier_document(tier: TierAmount) -> dict[str, str | None]:
    return {
        "start": str(tier.start),
        "up_to": None if tier.up_to is None else str(tier.up_to),
        "quantity": str(tier.quantity),
        "unit_price": str(tier.unit_price),
        "precise_amount": str(tier.precise_amount),
    }


def _invoices(conn: sa.Connection, query: sa.Select[Any]) -> list[Invoice]:
    rows = conn.execute(query).all()
    lines: dict[str, list[InvoiceLine]] = {}
    keys = [(row.customer_id, row.id) for row in rows]
    of_these = sa.tuple_(invoice_lines.c.customer_id, invoice_lines.c.invoice_id).in_(keys)
    for row in conn.execute(sa.select(invoice_lines).where(of_these).order_by(invoice_lines.c.position)):
        lines.setdefault(row.invoice_id, []).append(_line(row))
    return [_invoice(row, lines.get(row.id, [])) for row in rows]


def _invoice(row: sa.Row[Any], lines: list[InvoiceLine]) -> Invoice:
    values = {name: row._mapping[name] for name in _COLUMNS}  # noqa: SLF001 - SQLAlchemy's public name
    return Invoice(
        **values,
        state=InvoiceState(row.state),
        period=Period(row.period_start, row.period_end),
        lines=tuple(lines),
    )


def _line(row: sa.Row[Any]) -> InvoiceLine:
    values = {name: row._mapping[name] for name in _LINE_COLUMNS}  # noqa: SLF001 - SQLAlchemy's public name
    return InvoiceLine(
        **values,
        id=str(row.position),
        kind=LineKind(row.kind),
        sample_trace_ids=tuple(row.sample_trace_ids),
        tiers=tuple(
            TierAmount(
                start=Decimal(tier["start"]),
                up_to=None if tier["up_to"] is None else Decimal(tier["up_to"]),
                quantity=Decimal(tier["quantity"]),
                unit_price=Decimal(tier["unit_price"]),
                precise_amount=Decimal(tier["precise_amount"]),
            )
            for tier in row.tiers
        ),
        period=Period(row.period_start, row.period_end),
    )
