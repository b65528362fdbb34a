"""Bill runs."""

from meterscope.billing.v1 import bill_run_service_pb2 as pb
from services.billing.convert.times import timestamp
from services.billing.domain.bill_run import BillRun


def bill_run(value: BillRun) -> pb.BillRun:
    """Encode a bill run with its progress."""
    return pb.BillRun(
        id=value.id,
        state=pb.BillRunState.Value(f"BILL_RUN_STATE_{value.state}"),
        as_of=timestamp(value.as_of),
        due=value.due,
        invoiced=value.invoiced,
        failed=value.failed,
        failures=[
            pb.BillRunFailure(
                customer_id=failure.customer_id, subscription_id=failure.subscription_id, message=failure.message
            )
            for failure in value.failures
        ],
        create_time=timestamp(value.create_time),
        complete_time=timestamp(value.complete_time),
        trace_id=value.trace_id,
    )
