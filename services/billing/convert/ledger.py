"""The ledger."""

from decimal import Decimal

from google.type import money_pb2

from meterscope.billing.v1 import ledger_service_pb2 as pb
from services.billing.convert.times import timestamp
from services.billing.domain.ledger import Account, Entry, TrialBalance
from services.kit.money import Money, exponent, money_to_proto, quantize


def account(value: Account) -> pb.LedgerAccount:
    """Encode an account."""
    return pb.LedgerAccount(id=value.id, currency=value.currency, balance=_money(value.balance, value.currency))


def entry(value: Entry) -> pb.LedgerEntry:
    """Encode a leg."""
    return pb.LedgerEntry(
        id=value.id,
        transaction_id=value.transaction_id,
        account_id=value.account,
        amount=_money(value.amount, value.currency),
        description=value.description,
        invoice_id=value.invoice_id,
        payment_id=value.payment_id,
        create_time=timestamp(value.create_time),
    )


def trial_balance(value: TrialBalance) -> pb.TrialBalance:
    """Encode the sums of the ledger."""
    return pb.TrialBalance(
        currencies=[_currency_balance(value, currency) for currency in value.currencies], balanced=value.balanced
    )


def _currency_balance(value: TrialBalance, currency: str) -> pb.CurrencyBalance:
    accounts = value.of(currency)
    return pb.CurrencyBalance(
        currency=currency,
        debits=_money(sum((part.debits for part in accounts), Decimal(0)), currency),
        credits=_money(sum((part.credits for part in accounts), Decimal(0)), currency),
        difference=_money(value.difference(currency), currency),
        accounts=[account(part) for part in accounts],
    )


def _money(amount: Decimal, currency: str) -> money_pb2.Money:
    return money_to_proto(Money(quantize(amount, exponent(currency)), currency))
