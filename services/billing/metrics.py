"""The billing service's instruments, declared once."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from opentelemetry.metrics import CallbackOptions, CallbackT, Meter, Observation

from services.billing.domain.customer import CustomerState
from services.billing.domain.invoice import Invoice
from services.billing.domain.line import LineKind
from services.kit.leases import Lease

# 300 s is the alert's threshold.
GENERATION_BOUNDARIES: Final = (0.01, 0.05, 0.1, 0.5, 1, 5, 30, 60, 300)
_INVOICE_TYPE: Final = "subscription"
_STATUSES: Final = ("success", "failed")


class Instruments:
    """What billing counts as it happens."""

    def __init__(self, meter: Meter) -> None:
        self._generated = meter.create_counter(
            "billing.invoices.generated", description="Invoices by type and whether they could be made"
        )
        self._generation = meter.create_histogram(
            "billing.invoice.generation.duration",
            unit="s",
            description="Time to seal, price and freeze an invoice",
            explicit_bucket_boundaries_advisory=GENERATION_BOUNDARIES,
        )
        self._revenue = meter.create_counter(
            "billing.revenue", description="Finalized gross revenue, never decremented"
        )
        self._customers = meter.create_counter("billing.customers.created", description="Customers created")
        # A series that begins with its first failure would hide that failure from rate().
        for status in _STATUSES:
            self._generated.add(0, {"type": _INVOICE_TYPE, "status": status})
        self._customers.add(0)

    def customer_created(self) -> None:
        """Count a customer."""
        self._customers.add(1)

    def invoice_made(self, invoice: Invoice, seconds: float) -> None:
        """Count a frozen invoice and what it earned."""
        self._generated.add(1, {"type": _INVOICE_TYPE, "status": "success"})
        self._generation.record(seconds, {"status": "success"})
        for line in invoice.lines:
            kind = "subscription" if line.kind is LineKind.SUBSCRIPTION else "usage"
            # Instruments take no decimals; books are kept in the ledger.
            self._revenue.add(float(max(line.amount, Decimal(0))), {"type": kind, "currency": invoice.currency})

    def invoice_failed(self, seconds: float) -> None:
        """Count a period that was given up."""
        self._generated.add(1, {"type": _INVOICE_TYPE, "status": "failed"})
        self._generation.record(seconds, {"status": "failed"})


@dataclass(frozen=True)
class State:
    """What the gauges show.

    Attributes:
        customers: by state.
        subscriptions: running ones by plan.
        imbalance: debits less credits by currency: zero.
    """

    customers: Mapping[str, int] = field(default_factory=dict)
    subscriptions: Mapping[str, int] = field(default_factory=dict)
    imbalance: Mapping[str, Decimal] = field(default_factory=dict)


class Gauges:
    """State as last read; shown by the lease's holder alone, so that no second process shows an older one."""

    def __init__(self, meter: Meter, lease: Lease) -> None:
        self._lease = lease
        self._customers = {state.lower(): 0 for state in CustomerState}
        self._subscriptions: dict[str, int] = {}
        self._imbalance: dict[str, Decimal] = {}
        self._known = False
        meter.create_observable_gauge(
            "billing.customers.total", callbacks=[self._observer(self._of_customers)], description="Customers by status"
        )
        meter.create_observable_gauge(
            "billing.active_subscriptions",
            callbacks=[self._observer(self._of_subscriptions)],
            description="Running subscriptions by plan",
        )
        meter.create_observable_gauge(
            "billing.integrity.ledger_imbalance",
            callbacks=[self._observer(self._of_imbalance)],
            description="Debits less credits by currency: zero",
        )

    def set(self, state: State) -> None:
        """Set what is shown. What was there before and is gone is 0."""
        self._customers = dict.fromkeys(self._customers, 0) | {
            name.lower(): count for name, count in state.customers.items()
        }
        self._subscriptions = dict.fromkeys(self._subscriptions, 0) | dict(state.subscriptions)
        self._imbalance = dict.fromkeys(self._imbalance, Decimal(0)) | dict(state.imbalance)
        self._known = True

    def _observer(self, read: Callable[[], list[Observation]]) -> CallbackT:
        def observe(_options: CallbackOptions) -> Iterable[Observation]:
            return read() if self._known and self._lease.held else ()

        return observe

    def _of_customers(self) -> list[Observation]:
        return [Observation(count, {"status": status}) for status, count in self._customers.items()]

    def _of_subscriptions(self) -> list[Observation]:
        return [Observation(count, {"plan": plan}) for plan, count in self._subscriptions.items()]

    def _of_imbalance(self) -> list[Observation]:
        return [Observation(float(amount), {"currency": currency}) for currency, amount in self._imbalance.items()]
