"""The billing service's instruments, declared once."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from opentelemetry.metrics import Meter, Observation

from services.billing.domain.customer import CustomerState
from services.billing.domain.invoice import Invoice
from services.billing.domain.line import LineKind
from services.kit.instruments import Counter, Gauge, Histogram, Label, Read
from services.kit.leases import Lease

_INVOICE_TYPE: Final = "subscription"
_STATUS: Final = Label("status", ("success", "failed"))
_CURRENCY: Final = Label("currency")

INVOICES_GENERATED: Final = Counter(
    "billing.invoices.generated",
    "Invoices by type and whether they could be made",
    labels=(Label("type", (_INVOICE_TYPE,)), _STATUS),
)
GENERATION_DURATION: Final = Histogram(
    "billing.invoice.generation.duration",
    "Time to seal, price and freeze an invoice",
    unit="s",
    labels=(_STATUS,),
    boundaries=(0.01, 0.05, 0.1, 0.5, 1, 5, 30, 60, 300),
    alerts=(300,),
)
REVENUE: Final = Counter(
    "billing.revenue",
    "Finalized gross revenue, never decremented",
    labels=(Label("type", ("subscription", "usage")), _CURRENCY),
)
CUSTOMERS_CREATED: Final = Counter("billing.customers.created", "Customers created")
CUSTOMERS: Final = Gauge(
    "billing.customers.total",
    "Customers by status",
    labels=(Label("status", tuple(state.lower() for state in CustomerState)),),
)
ACTIVE_SUBSCRIPTIONS: Final = Gauge(
    "billing.active_subscriptions", "Running subscriptions by plan", labels=(Label("plan"),)
)
TENANTS_PER_PLAN: Final = Gauge(
    "billing.tenants_per_plan",
    "Customers with a running subscription by plan, each plan under the name of its newest version",
    labels=(Label("plan_id"), Label("plan_name")),
)
LEDGER_IMBALANCE: Final = Gauge(
    "billing.integrity.ledger_imbalance", "Debits less credits by currency: zero", labels=(_CURRENCY,)
)


class Instruments:
    """What billing counts as it happens."""

    def __init__(self, meter: Meter) -> None:
        self._generated = INVOICES_GENERATED.build(meter)
        self._generation = GENERATION_DURATION.build(meter)
        self._revenue = REVENUE.build(meter)
        self._customers = CUSTOMERS_CREATED.build(meter)

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
        tenants: customers with a running one by the plan's id and name.
        imbalance: debits less credits by currency: zero.
    """

    customers: Mapping[str, int] = field(default_factory=dict)
    subscriptions: Mapping[str, int] = field(default_factory=dict)
    tenants: Mapping[tuple[str, str], int] = field(default_factory=dict)
    imbalance: Mapping[str, Decimal] = field(default_factory=dict)


class Gauges:
    """State as last read; shown by the lease's holder alone, so that no second process shows an older one."""

    def __init__(self, meter: Meter, lease: Lease) -> None:
        self._lease = lease
        self._customers = {state.lower(): 0 for state in CustomerState}
        self._subscriptions: dict[str, int] = {}
        self._tenants: dict[tuple[str, str], int] = {}
        self._imbalance: dict[str, Decimal] = {}
        self._known = False
        CUSTOMERS.observe(meter, self._shown(self._of_customers))
        ACTIVE_SUBSCRIPTIONS.observe(meter, self._shown(self._of_subscriptions))
        TENANTS_PER_PLAN.observe(meter, self._shown(self._of_tenants))
        LEDGER_IMBALANCE.observe(meter, self._shown(self._of_imbalance))

    def set(self, state: State) -> None:
        """Set what is shown. What was there before and is gone is 0."""
        self._customers = dict.fromkeys(self._customers, 0) | {
            name.lower(): count for name, count in state.customers.items()
        }
        self._subscriptions = dict.fromkeys(self._subscriptions, 0) | dict(state.subscriptions)
        self._tenants = dict(state.tenants)
        self._imbalance = dict.fromkeys(self._imbalance, Decimal(0)) | dict(state.imbalance)
        self._known = True

    def _shown(self, read: Callable[[], list[Observation]]) -> Read:
        def shown() -> Iterable[Observation]:
            return read() if self._known and self._lease.held else ()

        return shown

    def _of_customers(self) -> list[Observation]:
        return [Observation(count, {"status": status}) for status, count in self._customers.items()]

    def _of_subscriptions(self) -> list[Observation]:
        return [Observation(count, {"plan": plan}) for plan, count in self._subscriptions.items()]

    def _of_tenants(self) -> list[Observation]:
        return [
            Observation(count, {"plan_id": plan_id, "plan_name": name})
            for (plan_id, name), count in self._tenants.items()
        ]

    def _of_imbalance(self) -> list[Observation]:
        return [Observation(float(amount), {"currency": currency}) for currency, amount in self._imbalance.items()]
