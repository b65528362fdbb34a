"""The ledger's transactions: debits positive, credits negative, each adds up to zero."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from services.billing.domain.invoice import Invoice
from services.billing.domain.line import LineKind


@dataclass(frozen=True)
class Leg:
    """An amount on an account: a debit when positive, a credit when negative."""

    account: str
    amount: Decimal


@dataclass(frozen=True)
class Posting:
    """A transaction of the ledger, in one currency."""

    customer_id: str
    description: str
    currency: str
    legs: tuple[Leg, ...]
    invoice_id: str = ""
    payment_id: str = ""

    def __post_init__(self) -> None:
        """Raise ValueError when the legs do not add up to zero."""
        if sum((leg.amount for leg in self.legs), Decimal(0)) != 0:
            raise ValueError(f"{self.description}: the legs do not add up to zero")


@dataclass(frozen=True)
class Account:
    """An account's sums in one currency; credits as a positive amount."""

    id: str
    currency: str
    debits: Decimal
    credits: Decimal

    @property
    def balance(self) -> Decimal:
        """Debits less credits."""
        return self.debits - self.credits


@dataclass(frozen=True)
class Entry:
    """A leg as it was posted."""

    id: str
    transaction_id: str
    account: str
    amount: Decimal
    currency: str
    description: str
    invoice_id: str
    payment_id: str
    create_time: datetime


@dataclass(frozen=True)
class TrialBalance:
    """The sums of all accounts, and how many transactions do not add up to zero."""

    accounts: tuple[Account, ...]
    unbalanced_transactions: int

    @property
    def currencies(self) -> list[str]:
        """The currencies in which something was posted."""
        return sorted({account.currency for account in self.accounts})

    def of(self, currency: str) -> list[Account]:
        """Return the accounts in a currency."""
        return [account for account in self.accounts if account.currency == currency]

    def difference(self, currency: str) -> Decimal:
        """Return the debits less the credits of a currency: zero."""
        return sum((account.balance for account in self.of(currency)), Decimal(0))

    @property
    def balanced(self) -> bool:
        """Whether every currency and every transaction adds up to zero."""
        return self.unbalanced_transactions == 0 and not any(map(self.difference, self.currencies))


def invoice_posting(invoice: Invoice) -> Posting:
    """Debit the customer's receivable, credit revenue by kind. A zero total is posted too: it leaves its trail."""
    revenue: defaultdict[str, Decimal] = defaultdict(Decimal)
    for line in invoice.lines:
        revenue["revenue:subscription" if line.kind is LineKind.SUBSCRIPTION else "revenue:usage"] += line.amount
    return Posting(
        customer_id=invoice.customer_id,
        description=f"invoice {invoice.id} finalized",
        currency=invoice.currency,
        legs=(
            Leg(f"receivable:{invoice.customer_id}", invoice.total),
            *(Leg(account, -amount) for account, amount in sorted(revenue.items())),
        ),
        invoice_id=invoice.id,
    )


def payment_posting(invoice: Invoice, payment_id: str, provider: str, amount: Decimal) -> Posting:
    """Debit the provider's cash, credit the customer's receivable."""
    return Posting(
        customer_id=invoice.customer_id,
        description=f"payment {payment_id} of invoice {invoice.id}",
        currency=invoice.currency,
        legs=(Leg(f"cash:{provider}", amount), Leg(f"receivable:{invoice.customer_id}", -amount)),
        invoice_id=invoice.id,
        payment_id=payment_id,
    )
