"""The ledger, read."""

from services.billing.domain.ledger import Account, Entry, TrialBalance
from services.billing.store import ledger
from services.kit import paging
from services.kit.db import Database


class Ledger:
    """Shows accounts, entries and the trial balance."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def accounts(self, *, page_size: int, page_token: str) -> tuple[list[Account], str]:
        """Return a page of accounts by id and currency, and the next page's token."""
        size = paging.page_size(page_size)
        after = paging.decode_token(page_token, {}) or ["", ""]
        with self._database.transaction() as conn:
            found = ledger.accounts(conn, after=(after[0], after[-1]), limit=size + 1)
        last = found[size - 1] if len(found) > size else None
        return found[:size], paging.encode_token([last.id, last.currency], {}) if last else ""

    def entries(self, *, account: str, invoice_id: str, page_size: int, page_token: str) -> tuple[list[Entry], str]:
        """Return a page of entries, newest first, and the next page's token."""
        filters = {"account_id": account, "invoice_id": invoice_id}
        size = paging.page_size(page_size)
        before = paging.decode_token(page_token, filters) or [""]
        with self._database.transaction() as conn:
            found = ledger.entries(conn, account=account, invoice_id=invoice_id, before=before[0], limit=size + 1)
        return found[:size], paging.encode_token([found[size - 1].id], filters) if len(found) > size else ""

    def trial_balance(self) -> TrialBalance:
        """Return the sums of the ledger."""
        with self._database.transaction() as conn:
            return TrialBalance(
                accounts=tuple(ledger.accounts(conn, after=("", ""), limit=None)),
                unbalanced_transactions=ledger.unbalanced_transactions(conn),
            )
