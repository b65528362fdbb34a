"""The tables of usage. What belongs to a customer has the customer's number at the head of its primary key.

Every row that moves totals carries `tx`, the id of the transaction that wrote it, and `generation`, which grows when a
restore into another cluster makes those ids begin anew: the rollup takes rows in the order of (generation, tx).
"""

from services.usage.tables.costs import cost_periods, costing, daily_costs
from services.usage.tables.customers import changes, customer_keys, customers, default_limits, edges, limits, periods
from services.usage.tables.events import corrections, event_keys, events, quarantine
from services.usage.tables.meters import meters, recount_slices, recounts
from services.usage.tables.places import floors, generations, rollups
from services.usage.tables.quotas import quotas, reservations
from services.usage.tables.reports import anomalies, reports
from services.usage.tables.schema import Xid8, metadata
from services.usage.tables.totals import (
    bucket_totals,
    bucket_values,
    drifts,
    period_totals,
    sealed_totals,
    seals,
    thresholds,
    trace_samples,
)

__all__ = [
    "Xid8",
    "anomalies",
    "bucket_totals",
    "bucket_values",
    "changes",
    "corrections",
    "cost_periods",
    "costing",
    "customer_keys",
    "customers",
    "daily_costs",
    "default_limits",
    "drifts",
    "edges",
    "event_keys",
    "events",
    "floors",
    "generations",
    "limits",
    "metadata",
    "meters",
    "period_totals",
    "periods",
    "quarantine",
    "quotas",
    "recount_slices",
    "recounts",
    "reports",
    "reservations",
    "rollups",
    "sealed_totals",
    "seals",
    "thresholds",
    "trace_samples",
]
