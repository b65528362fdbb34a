"""The ledger: it adds up to zero, and neither it nor a frozen invoice can be changed, whoever tries."""

from collections.abc import Iterator
from typing import Any, LiteralString

import psycopg
import pytest
from billing_harness import Client, amount, inr
from billing_peers import Peers, sealed

from meterscope.billing.v1 import customer_service_pb2, invoice_service_pb2
from meterscope.billing.v1 import ledger_service_pb2 as pb
from services.billing.settings import Settings
from services.kit.ids import new_id

pytestmark = pytest.mark.usefixtures("worker")

MAY, JUNE = "2026-04-30T18:30", "2026-05-31T18:30"


@pytest.fixture(scope="module")
def customer(client: Client, peers: Peers, worker: None) -> customer_service_pb2.Customer:  # noqa: ARG001 - it bills
    """One with an invoice over 499.00 + 10.00 rupees that is partly paid."""
    customer = client.customer()
    client.subscribe(customer, client.plan(), MAY)
    peers.usage.totals[customer.id] = [sealed("requests", "400", events=400)]
    client.bill(JUNE)
    client.pay(client.invoices_of(customer)[0], inr("500.00"), new_id("req"))
    return customer


@pytest.fixture(scope="module")
def invoice(client: Client, customer: customer_service_pb2.Customer) -> invoice_service_pb2.Invoice:
    return client.invoices_of(customer)[0]


@pytest.fixture
def connection(settings: Settings) -> Iterator[psycopg.Connection[Any]]:
    """The service's own role, past all of its code."""
    with psycopg.connect(settings.database_url, autocommit=True, options="-c search_path=billing") as connection:
        yield connection


def test_accounts_hold_what_was_posted(client: Client, customer: customer_service_pb2.Customer) -> None:
    accounts = client.ledger.ListAccounts(pb.ListAccountsRequest()).accounts
    assert {account.id: str(amount(account.balance)) for account in accounts} == {
        "cash:sandbox": "500",
        f"receivable:{customer.id}": "9",
        "revenue:subscription": "-499",
        "revenue:usage": "-10",
    }


def test_the_trial_balance_is_zero_in_every_currency(client: Client, customer: customer_service_pb2.Customer) -> None:
    balance = client.ledger.GetTrialBalance(pb.GetTrialBalanceRequest())
    assert balance.balanced
    (rupees,) = balance.currencies
    assert (rupees.currency, str(amount(rupees.difference))) == ("INR", "0")
    # Debits: 509.00 receivable and 500.00 cash.
    assert amount(rupees.debits) == amount(rupees.credits) == 1009
    assert f"receivable:{customer.id}" in {account.id for account in rupees.accounts}


def test_entries_are_listed_newest_first_with_their_reason(
    client: Client, customer: customer_service_pb2.Customer, invoice: invoice_service_pb2.Invoice
) -> None:
    request = pb.ListEntriesRequest(account_id=f"receivable:{customer.id}")
    paid, demanded = client.ledger.ListEntries(request).entries
    assert (str(amount(paid.amount)), str(amount(demanded.amount))) == ("-500", "509")
    assert demanded.description == f"invoice {invoice.id} finalized"
    assert (paid.payment_id, paid.invoice_id) == (f"pay_of_{invoice.id}", invoice.id)


def test_accounts_and_entries_come_in_pages(client: Client, customer: customer_service_pb2.Customer) -> None:
    assert customer.id
    accounts, token = [], ""
    for _ in range(4):
        page = client.ledger.ListAccounts(pb.ListAccountsRequest(page_size=1, page_token=token))
        accounts += [account.id for account in page.accounts]
        token = page.next_page_token
    assert accounts == sorted(accounts)
    assert (len(accounts), token) == (4, "")
    first = client.ledger.ListEntries(pb.ListEntriesRequest(page_size=3))
    second = client.ledger.ListEntries(pb.ListEntriesRequest(page_size=3, page_token=first.next_page_token))
    assert len({entry.id for entry in (*first.entries, *second.entries)}) == 5


@pytest.mark.usefixtures("customer")
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger_entries SET amount = amount + 1",
        "DELETE FROM ledger_entries",
        "TRUNCATE ledger_entries, ledger_transactions",
        "UPDATE ledger_transactions SET description = 'x'",
        "UPDATE invoices SET total = total + 1, subtotal = subtotal + 1",
        "UPDATE invoices SET number = 'INV-1'",
        "UPDATE invoices SET customer_display_name = 'x'",
        "UPDATE invoices SET amount_due = amount_due + 1",
        "UPDATE invoices SET state = 'DRAFT', number = ''",
        "DELETE FROM invoices",
        "TRUNCATE invoices CASCADE",
        "UPDATE invoice_lines SET amount = 0",
        "DELETE FROM invoice_lines",
    ],
)
def test_what_is_frozen_cannot_be_changed(connection: psycopg.Connection[Any], statement: LiteralString) -> None:
    with pytest.raises(psycopg.errors.IntegrityConstraintViolation):
        connection.execute(statement)


@pytest.mark.usefixtures("customer")
def test_a_frozen_invoice_takes_no_further_line(connection: psycopg.Connection[Any]) -> None:
    line = (
        "INSERT INTO invoice_lines SELECT customer_id, invoice_id, 9, component_id, description, kind, meter, quantity, "
        "unit, unit_price, per, included, precise_amount, amount, tax_amount, tiers, event_count, sample_trace_ids, "
        "period_start, period_end, priced_quantity, billed_before FROM invoice_lines LIMIT 1"
    )
    with pytest.raises(psycopg.errors.IntegrityConstraintViolation, match="frozen"):
        connection.execute(line)


def test_a_transaction_that_does_not_add_up_is_refused_at_its_commit(connection: psycopg.Connection[Any]) -> None:
    legs = "INSERT INTO ledger_entries VALUES ('cus_1', %s, 'ltx_1', %s, %s, %s)"
    with pytest.raises(psycopg.errors.IntegrityConstraintViolation, match="does not add up"), connection.transaction():
        connection.execute("INSERT INTO ledger_transactions VALUES ('cus_1', 'ltx_1', 'crooked', '', '', now())")
        connection.execute(legs, ("ent_1", "cash:x", "INR", 5))
        # Ten dollars are not ten rupees.
        connection.execute(legs, ("ent_2", "revenue:usage", "USD", -5))
    assert connection.execute("SELECT count(*) FROM ledger_transactions WHERE id = 'ltx_1'").fetchone() == (0,)


def test_an_invoice_that_does_not_add_up_to_its_lines_is_not_frozen(
    connection: psycopg.Connection[Any], customer: customer_service_pb2.Customer
) -> None:
    draft = (
        "INSERT INTO invoices SELECT customer_id, 'inv_draft', seller, '', customer_display_name, 'sub_x', plan_id, "
        "plan_version, bill_run_id, 'DRAFT', currency, period_start, period_end, 1, 0, 1, 1, '', '', '', NULL, NULL "
        "FROM invoices WHERE customer_id = %s"
    )
    connection.execute(draft, (customer.id,))
    with pytest.raises(psycopg.errors.IntegrityConstraintViolation, match="does not add up to its lines"):
        connection.execute("UPDATE invoices SET state = 'FINALIZED', number = 'INV-X' WHERE id = 'inv_draft'")
    connection.execute("DELETE FROM invoices WHERE id = 'inv_draft'")
