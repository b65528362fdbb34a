"""Explaining an invoice line: its price computed again, its events from usage, links to their traces."""

from decimal import Decimal

from meterscope.billing.v1 import invoice_service_pb2 as pb
from meterscope.usage.v1 import event_service_pb2, meter_service_pb2
from services.billing.clients import Usage
from services.billing.convert import invoice as convert
from services.billing.convert.times import interval
from services.billing.domain.explanation import explain
from services.billing.domain.invoice import Invoice
from services.billing.domain.line import InvoiceLine
from services.billing.domain.trace import TraceLinks
from services.billing.errors import InvoiceLineNotFound, InvoiceNotFound
from services.billing.store import invoices, plans
from services.kit import paging
from services.kit.db import Database
from services.kit.money import decimal_to_proto


class Explanations:
    """Explains invoice lines."""

    def __init__(self, database: Database, usage: Usage, links: TraceLinks) -> None:
        self._database = database
        self._usage = usage
        self._links = links

    def explain(self, request: pb.ExplainInvoiceLineRequest) -> pb.InvoiceLineExplanation:
        """Show what makes a line.

        Raises:
            InvoiceNotFound, InvoiceLineNotFound: no such invoice or line.
            Unavailable: usage, which has the events, cannot be reached.
        """
        size = paging.page_size(request.page_size)
        with self._database.transaction() as conn:
            invoice = invoices.get(conn, request.invoice_id)
            if invoice is None:
                raise InvoiceNotFound(request.invoice_id)
            line = invoice.line(request.line_id)
            if line is None:
                raise InvoiceLineNotFound(request.invoice_id, request.line_id)
            priced_by = invoices.priced_by(conn, invoice, line)
            plan = plans.version(conn, *priced_by)
        component = plan.component(line.component_id)
        answer = pb.InvoiceLineExplanation(
            line=convert.line(line, invoice.currency),
            steps=explain(invoice, line, component).steps,
            period=interval(line.period),
            plan_id=plan.terms.id,
            plan_version=plan.version,
            trace_links=[link for trace_id in line.sample_trace_ids if (link := self._links.to(trace_id))],
        )
        if line.meter:
            answer.seal_id = invoice.seal_id
            self._add_events(answer, invoice, line, size, request.page_token)
        return answer

    def _add_events(
        self, answer: pb.InvoiceLineExplanation, invoice: Invoice, line: InvoiceLine, size: int, token: str
    ) -> None:
        meter = self._usage.meter(line.meter)
        events = self._usage.events(invoice.customer_id, line.period, line.meter, page_size=size, page_token=token)
        answer.events.extend(_explained(event, meter) for event in events.events)
        answer.next_page_token = events.next_page_token


def _explained(event: event_service_pb2.Event, meter: meter_service_pb2.Meter) -> pb.ExplainedEvent:
    adds = decimal_to_proto(Decimal(1))
    if meter.quantity:
        adds = event.quantities[meter.quantity] if meter.quantity in event.quantities else decimal_to_proto(Decimal(0))
    return pb.ExplainedEvent(id=event.id, source=event.source, time=event.time, quantity=adds, trace_id=event.trace_id)
