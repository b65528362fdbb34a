"""How the gateway and the services answer."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from scripts.dashboards.board import Row, board, service, trace
from scripts.dashboards.panel import (
    REQUESTS_PER_SECOND,
    SECONDS,
    SHARE,
    Query,
    bars,
    fail_at,
    lines,
    log_lines,
    warn_and_fail_at,
)
from scripts.dashboards.promql import ENVIRONMENT, highest, per_second, quantile, ratio

_REQUESTS = "billing_http_requests_total"
_DURATION = "billing_http_request_duration_seconds"
_CALLS = "rpc_server_call_duration_seconds"
_OF_SERVICE = 'service_name=~"$service"'
_FAILED = 'status_code=~"5.."'
# A caller's own mistake is no failure of the server's.
_CALL_FAILED = 'rpc_response_status_code=~"INTERNAL|UNKNOWN|UNAVAILABLE|DATA_LOSS|DEADLINE_EXCEEDED"'


def api() -> Dashboard:
    """Return the dashboard."""
    return board(
        "meterscope-api",
        "API performance",
        "How many calls there are, how fast they are answered, and what goes wrong: REST at the gateway, gRPC at the services.",
        [_rest(), _grpc(), _lines()],
        variables=[service(), trace()],
        since="now-1h",
    )


def _rest() -> Row:
    return Row(
        "REST",
        [
            [
                lines(
                    "Requests by route",
                    Query(per_second(_REQUESTS, by=("method", "route")), "{{method}} {{route}}"),
                    unit=REQUESTS_PER_SECOND,
                    shows="HTTP requests each second, by method and route. `unmatched` is what no route is for.",
                    normal="follows the day of your customers.",
                ),
                lines(
                    "p50, p95, p99",
                    *(Query(quantile(share, _DURATION), f"p{share * 100:.0f}") for share in (0.5, 0.95, 0.99)),
                    unit=SECONDS,
                    shows="How long HTTP requests take. A dot is one request whose trace is kept: it leads there.",
                    normal="p95 below 0.5 s.",
                    bounds=warn_and_fail_at(0.5, 1),
                    exemplars=True,
                ),
            ],
            [
                lines(
                    "Answers by status",
                    Query(per_second(_REQUESTS, by=("status_code",)), "{{status_code}}"),
                    unit=REQUESTS_PER_SECOND,
                    shows="Answers each second, by HTTP status.",
                    normal="2xx; some 4xx of callers' mistakes; 429 where limits hold.",
                    stacked=True,
                ),
                lines(
                    "Share of errors",
                    Query(ratio(per_second(_REQUESTS, _FAILED), per_second(_REQUESTS)), "5xx"),
                    Query(ratio(per_second(_REQUESTS, 'status_code=~"4.."'), per_second(_REQUESTS)), "4xx"),
                    unit=SHARE,
                    shows="Share of requests that were answered with 5xx, which are ours, and with 4xx, which are the callers'.",
                    normal="no 5xx; an alert is raised above 5 %.",
                    bounds=warn_and_fail_at(0.01, 0.05),
                    alerts=("BillingHttp5xxHigh",),
                ),
                bars(
                    "Slowest routes, p95",
                    Query(highest(10, quantile(0.95, _DURATION, by=("route",))), "{{route}}"),
                    unit=SECONDS,
                    shows="The routes whose p95 is highest now.",
                    normal="below 0.5 s; uploads take longer.",
                    bounds=warn_and_fail_at(0.5, 1),
                ),
            ],
        ],
    )


def _grpc() -> Row:
    return Row(
        "gRPC",
        [
            [
                lines(
                    "Calls by method",
                    Query(per_second(f"{_CALLS}_count", _OF_SERVICE, by=("rpc_method",)), "{{rpc_method}}"),
                    unit=REQUESTS_PER_SECOND,
                    shows="gRPC calls that the chosen services answer each second.",
                    normal="follows the day of your customers.",
                ),
                lines(
                    "p95 by method",
                    Query(quantile(0.95, _CALLS, _OF_SERVICE, by=("rpc_method",)), "{{rpc_method}}"),
                    unit=SECONDS,
                    shows="What 95 % of the calls take less than, by method. A dot is one call whose trace is kept.",
                    normal="below 0.1 s; batches, imports and seals take longer.",
                    bounds=fail_at(1),
                    exemplars=True,
                ),
            ],
            [
                lines(
                    "Answers by status",
                    Query(
                        per_second(f"{_CALLS}_count", _OF_SERVICE, by=("rpc_response_status_code",)),
                        "{{rpc_response_status_code}}",
                    ),
                    unit=REQUESTS_PER_SECOND,
                    shows="Answers each second, by gRPC status.",
                    normal="OK; some NOT_FOUND and INVALID_ARGUMENT of callers' mistakes.",
                    stacked=True,
                ),
                lines(
                    "Share of errors",
                    Query(
                        ratio(
                            per_second(f"{_CALLS}_count", _OF_SERVICE, _CALL_FAILED),
                            per_second(f"{_CALLS}_count", _OF_SERVICE),
                        ),
                        "failed",
                    ),
                    unit=SHARE,
                    shows="Share of calls that failed by the server's fault: not those that refuse a caller's mistake.",
                    normal="0; an alert is raised above 5 %.",
                    bounds=warn_and_fail_at(0.01, 0.05),
                    alerts=("BillingErrorRateHigh",),
                ),
                lines(
                    "Refused service tokens",
                    Query(
                        per_second("billing_auth_failures_total", _OF_SERVICE, by=("service_name", "route")),
                        "{{service_name}} {{route}}",
                    ),
                    unit=REQUESTS_PER_SECOND,
                    shows="Calls each second that were refused for want of a valid service token.",
                    normal="0: our own processes have the token.",
                    bounds=fail_at(0.01),
                    alerts=("BillingAuthFailures",),
                ),
            ],
        ],
    )


def _lines() -> Row:
    chosen = f'{{service_namespace="meterscope", service_name=~"$service", {ENVIRONMENT}}} | trace_id=~"$trace_id"'
    return Row(
        "Log lines",
        [
            [
                log_lines(
                    "Warnings and errors",
                    f'{chosen} | severity_text=~"WARN.*|ERROR|FATAL|CRITICAL"',
                    shows="What the chosen processes wrote as a warning or worse. Opened, a line leads to its trace.",
                    normal="alerts alone, where a channel writes them to the log.",
                ),
                log_lines(
                    "Of a trace",
                    chosen,
                    shows="What the chosen processes wrote. With a trace id in the field above, that trace's lines alone.",
                    normal="starts, stops, thresholds, alerts.",
                ),
            ]
        ],
    )
