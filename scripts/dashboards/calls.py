"""Call records: how many, how fast, where to."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from scripts.dashboards.board import Row, board
from scripts.dashboards.panel import (
    COUNT,
    PER_SECOND,
    SECONDS,
    SHARE,
    Query,
    bars,
    fail_at,
    lines,
    number,
    warn_and_fail_at,
    warn_at,
)
from scripts.dashboards.promql import grown, highest, per_second, quantile, ratio

_RECORDS = "billing_cdr_processed_total"
_DURATION = "billing_cdr_processing_duration_seconds"
_FAILED = 'status="failed"'


def calls() -> Dashboard:
    """Return the dashboard."""
    return board(
        "meterscope-cdr",
        "Call records",
        "Call detail records: how many are taken in, how long a batch takes, what fails, which countries are called.",
        [_now(), _course(), _destinations()],
    )


def _now() -> Row:
    return Row(
        "Now",
        [
            [
                number(
                    "Records",
                    Query(per_second(_RECORDS), "records"),
                    unit=PER_SECOND,
                    shows="Call records each second, stored and refused.",
                    normal="follows the day of your customers.",
                ),
                number(
                    "Failed",
                    Query(ratio(per_second(_RECORDS, _FAILED), per_second(_RECORDS)), "failed"),
                    unit=SHARE,
                    shows="Share of call records that could not be stored. Empty without records.",
                    normal="below 1 %; an alert is raised above 5 %.",
                    bounds=warn_and_fail_at(0.01, 0.05),
                ),
                number(
                    "p95 of a batch",
                    Query(quantile(0.95, _DURATION), "p95"),
                    unit=SECONDS,
                    shows="What 95 % of the batches take less than until they are stored. Empty without records.",
                    normal="below 0.5 s.",
                    bounds=warn_and_fail_at(0.5, 1),
                ),
                number(
                    "In this range",
                    Query(grown(_RECORDS, 'status="success"'), "stored"),
                    unit=COUNT,
                    shows="Call records that were stored in the dashboard's range.",
                    normal="follows the day of your customers.",
                ),
            ]
        ],
    )


def _course() -> Row:
    return Row(
        "Course",
        [
            [
                lines(
                    "Records by type",
                    Query(per_second(_RECORDS, 'status="success"', by=("call_type",)), "{{call_type}}"),
                    unit=PER_SECOND,
                    shows="Call records that were stored each second, by type of call.",
                    normal="follows the day of your customers.",
                ),
                lines(
                    "Latency of a batch",
                    *(Query(quantile(share, _DURATION), f"p{share * 100:.0f}") for share in (0.5, 0.95, 0.99)),
                    unit=SECONDS,
                    shows="How long a batch takes until it is stored. A dot is one batch whose trace is kept.",
                    normal="p95 below 0.5 s.",
                    bounds=warn_at(1),
                    exemplars=True,
                ),
                lines(
                    "Failures by type",
                    Query(per_second(_RECORDS, _FAILED, by=("call_type",)), "{{call_type}}"),
                    unit=PER_SECOND,
                    shows="Call records that could not be stored, each second. A record that cannot be read is `unknown`.",
                    normal="0.",
                    bounds=fail_at(1),
                ),
            ]
        ],
    )


def _destinations() -> Row:
    top = grown(_RECORDS, 'status="success"', by=("destination",))
    return Row(
        "Destinations",
        [
            [
                bars(
                    "Top 10 countries",
                    Query(highest(10, top), "{{destination}}"),
                    unit=COUNT,
                    shows="The countries that were called most in the dashboard's range.",
                    normal="your customers' own countries. A country that never was here may be fraud.",
                ),
                lines(
                    "Records by country",
                    Query(per_second(_RECORDS, 'status="success"', by=("destination",)), "{{destination}}"),
                    unit=PER_SECOND,
                    shows="Call records that were stored each second, by the country called.",
                    normal="your customers' own countries.",
                    stacked=True,
                ),
            ]
        ],
    )
