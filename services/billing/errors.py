"""This service's errors, one sentence each."""

from services.kit.errors import AlreadyExists, FailedPrecondition, NotFound, ServiceError


class CustomerNotFound(NotFound):
    """No customer has this id."""

    reason = "CUSTOMER_NOT_FOUND"

    def __init__(self, customer_id: str) -> None:
        super().__init__(f"there is no customer {customer_id!r}", metadata={"customer_id": customer_id})


class CustomerKeyTaken(AlreadyExists):
    """Another customer has this external key."""

    reason = "CUSTOMER_KEY_TAKEN"

    def __init__(self, external_key: str) -> None:
        super().__init__(
            f"the external key {external_key!r} is another customer's; choose a key of its own",
            metadata={"external_key": external_key},
        )


class PlanNotFound(NotFound):
    """No plan has this id."""

    reason = "PLAN_NOT_FOUND"

    def __init__(self, plan_id: str) -> None:
        super().__init__(f"there is no plan {plan_id!r}", metadata={"plan_id": plan_id})


class PlanExists(AlreadyExists):
    """A plan with other content has this id."""

    reason = "PLAN_EXISTS"

    def __init__(self, plan_id: str) -> None:
        super().__init__(
            f"the plan {plan_id!r} exists with other content; choose another id", metadata={"plan_id": plan_id}
        )


class SubscriptionNotFound(NotFound):
    """No subscription has this id."""

    reason = "SUBSCRIPTION_NOT_FOUND"

    def __init__(self, subscription_id: str) -> None:
        super().__init__(f"there is no subscription {subscription_id!r}", metadata={"subscription_id": subscription_id})


class AlreadySubscribed(FailedPrecondition):
    """The customer has a running subscription."""

    reason = "ALREADY_SUBSCRIBED"

    def __init__(self, customer_id: str) -> None:
        super().__init__(
            f"customer {customer_id!r} already has a running subscription; a customer has one at a time",
            metadata={"customer_id": customer_id},
        )


class NoRunningSubscription(FailedPrecondition):
    """The customer is on no plan."""

    reason = "NO_RUNNING_SUBSCRIPTION"

    def __init__(self, customer_id: str) -> None:
        super().__init__(
            f"customer {customer_id!r} has no running subscription; subscribe it to a plan, or name a plan",
            metadata={"customer_id": customer_id},
        )


class CurrencyDiffers(FailedPrecondition):
    """The customer is billed in another currency than the plan's."""

    reason = "CURRENCY_DIFFERS"

    def __init__(self, customer_currency: str, plan_currency: str) -> None:
        super().__init__(
            f"the customer is billed in {customer_currency}, the plan is priced in {plan_currency}; "
            f"choose a plan in {customer_currency}",
            metadata={"customer_currency": customer_currency, "plan_currency": plan_currency},
        )


class InvoiceNotFound(NotFound):
    """No invoice has this id."""

    reason = "INVOICE_NOT_FOUND"

    def __init__(self, invoice_id: str) -> None:
        super().__init__(f"there is no invoice {invoice_id!r}", metadata={"invoice_id": invoice_id})


class InvoiceLineNotFound(NotFound):
    """The invoice has no line with this id."""

    reason = "INVOICE_LINE_NOT_FOUND"

    def __init__(self, invoice_id: str, line_id: str) -> None:
        super().__init__(
            f"invoice {invoice_id!r} has no line {line_id!r}", metadata={"invoice_id": invoice_id, "line_id": line_id}
        )


class InvoiceNotPayable(FailedPrecondition):
    """The invoice does not wait for a payment."""

    reason = "INVOICE_NOT_PAYABLE"

    def __init__(self, invoice_id: str, state: str) -> None:
        super().__init__(
            f"invoice {invoice_id!r} is {state}; only a FINALIZED one takes payments",
            metadata={"invoice_id": invoice_id, "state": state},
        )


class BillRunNotFound(NotFound):
    """No bill run has this id."""

    reason = "BILL_RUN_NOT_FOUND"

    def __init__(self, bill_run_id: str) -> None:
        super().__init__(f"there is no bill run {bill_run_id!r}", metadata={"bill_run_id": bill_run_id})


class AmountTooLarge(FailedPrecondition):
    """The invoice would demand more than can be paid."""

    reason = "AMOUNT_TOO_LARGE"

    def __init__(self, customer_id: str, limit: str) -> None:
        super().__init__(
            f"an amount of customer {customer_id!r} is above {limit}; look at the plan's unit prices and the usage",
            metadata={"customer_id": customer_id},
        )


class EarlierPeriodOpen(FailedPrecondition):
    """An earlier period of the subscription is not billed, and periods are sealed in their order."""

    reason = "EARLIER_PERIOD_OPEN"

    def __init__(self, subscription_id: str, end: str) -> None:
        super().__init__(
            f"the period of subscription {subscription_id!r} that ends at {end} is not billed yet; "
            "mend what keeps it, then start a bill run again: it takes up both",
            metadata={"subscription_id": subscription_id},
        )


class BillingBrokenOff(ServiceError):
    """The process ended in the midst of the last attempt to bill a period."""

    reason = "BILLING_BROKEN_OFF"

    def __init__(self, attempts: int) -> None:
        super().__init__(
            f"the process ended in the midst of the last of {attempts} attempts; mend what ended it, then start a bill run "
            "again: it takes the period up"
        )


class PaymentMethodMissing(FailedPrecondition):
    """Payments cannot collect from the customer."""

    reason = "PAYMENT_METHOD_MISSING"


class InvoiceCollectedElsewhere(FailedPrecondition):
    """Payments has a payment of the invoice already that was not billing's own."""

    reason = "INVOICE_COLLECTED_ELSEWHERE"


class PeerRefused(ServiceError):
    """Another service refused what billing asked of it; `peer_reason` is its reason for programs."""

    reason = "PEER_REFUSED"

    def __init__(self, peer: str, code: str, details: str, peer_reason: str = "") -> None:
        super().__init__(f"{peer} answered {code}: {details}", metadata={"peer": peer, "code": code})
        self.peer_reason = peer_reason
