"""The state that gauges show."""

from services.billing.domain.ledger import TrialBalance
from services.billing.metrics import State
from services.billing.store import customers, ledger, plans, subscriptions
from services.kit.db import Database


class Statistics:
    """Reads what the gauges show."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def read(self) -> State:
        """Count customers and subscriptions, and add up the ledger."""
        with self._database.transaction() as conn:
            on_plans = subscriptions.counts_by_plan(conn)
            books = TrialBalance(tuple(ledger.accounts(conn, after=("", ""), limit=None)), unbalanced_transactions=0)
            return State(
                customers=customers.counts(conn),
                subscriptions=on_plans,
                # A customer has one running subscription at most.
                tenants={(plan_id, name): on_plans.get(plan_id, 0) for plan_id, name in plans.names(conn).items()},
                imbalance={currency: books.difference(currency) for currency in books.currencies},
            )
