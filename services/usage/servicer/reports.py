"""ReportService."""

import grpc

from meterscope.usage.v1 import report_service_pb2 as pb
from meterscope.usage.v1 import report_service_pb2_grpc
from services.usage.convert import reports as convert
from services.usage.convert.fields import instant, text
from services.usage.convert.report_csv import as_csv
from services.usage.usecases.anomalies import Anomalies
from services.usage.usecases.costs import Costs
from services.usage.usecases.reports.report import UsageReport
from services.usage.usecases.reports.reports import Reports


class ReportServicer(report_service_pb2_grpc.ReportServiceServicer):
    """Reports on usage, its cost, and where it is not what it usually is."""

    def __init__(self, reports: Reports, costs: Costs, anomalies: Anomalies) -> None:
        self._reports = reports
        self._costs = costs
        self._anomalies = anomalies

    def GetUsageReport(self, request: pb.GetUsageReportRequest, context: grpc.ServicerContext) -> pb.UsageReport:
        """Report on a range."""
        customer_id, wanted = text(request.customer_id, "customer_id"), convert.document_format(request.format)
        if request.report_id:
            answer = convert.stored(
                self._reports.stored(customer_id, text(request.report_id, "report_id")), customer_id
            )
        else:
            start = instant(request.start_time, "start_time") if request.HasField("start_time") else None
            end = instant(request.end_time, "end_time") if request.HasField("end_time") else None
            found = self._reports.get(customer_id, start, end)
            answer = convert.report(found) if isinstance(found, UsageReport) else convert.stored(found, customer_id)
        if wanted == convert.CSV and answer.state == pb.REPORT_STATE_READY:
            answer.document.CopyFrom(as_csv(answer))
            # The document has them; twice they might be too much for an answer.
            answer.ClearField("meters")
        return convert.sized(answer)

    def ListDailyCosts(
        self, request: pb.ListDailyCostsRequest, context: grpc.ServicerContext
    ) -> pb.ListDailyCostsResponse:
        """List what days cost."""
        found, token = self._costs.page(
            customer_id=text(request.customer_id, "customer_id", optional=True),
            first=convert.day(request.start_date, "start_date"),
            behind=convert.day(request.end_date, "end_date"),
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return pb.ListDailyCostsResponse(daily_costs=map(convert.daily_cost, found), next_page_token=token)

    def ListUsageAnomalies(
        self, request: pb.ListUsageAnomaliesRequest, context: grpc.ServicerContext
    ) -> pb.ListUsageAnomaliesResponse:
        """List anomalies, or judge a customer now."""
        customer_id = text(request.customer_id, "customer_id", optional=True)
        meter_id = text(request.meter, "meter", optional=True)
        by = convert.judgement(request)
        if by is not None:
            found, token = self._anomalies.now(customer_id, meter_id, by, request.page_size, request.page_token)
            return pb.ListUsageAnomaliesResponse(anomalies=map(convert.anomaly, found), next_page_token=token)
        stored, token = self._anomalies.page(
            customer_id=customer_id, meter_id=meter_id, page_size=request.page_size, page_token=request.page_token
        )
        return pb.ListUsageAnomaliesResponse(
            anomalies=[convert.anomaly(each.anomaly, each) for each in stored], next_page_token=token
        )
