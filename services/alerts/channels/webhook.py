"""The webhook channel: an HTTP POST as Standard Webhooks 1.0 has it (https://www.standardwebhooks.com).

`webhook-id` is the notification's id, the same at every attempt. Redirects are not followed. The answer's status says
all: its body is taken off the wire, up to a bound, and thrown away, so that no user reads through a webhook what a host
inside some network answers.
"""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

import httpcore
import httpx
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode
from standardwebhooks import Webhook

from services.alerts.channels.base import Message
from services.alerts.channels.connection import AddressGuard, Deadline, GuardedNetwork
from services.alerts.channels.payload import firing_payload
from services.alerts.convert import alert_to_proto
from services.alerts.domain.alert import LinkBases
from services.alerts.domain.notification import Outcome, Verdict
from services.alerts.errors import AddressRefused
from services.kit import telemetry

MAX_ANSWER_BYTES: Final = 64 * 1024
_GONE: Final = 410
_FAULTS: Final = (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError)
# Baggage names customers: it stays inside.
_TRACE_HEADERS: Final = ("traceparent", "tracestate")

_log = logging.getLogger(__name__)


class WebhookChannel:
    """Posts alerts to the URLs that users gave."""

    def __init__(self, guard: AddressGuard, links: LinkBases, *, timeout: timedelta) -> None:
        """Prepare.

        Args:
            guard: which hosts may be posted to.
            links: for the alert's links.
            timeout: the whole exchange's, from connecting to the answer; resolving the name is not in it.
        """
        self._guard = guard
        self._links = links
        self._timeout = timeout
        self._tls = httpx.create_ssl_context()
        self._tracer = trace.get_tracer("services.alerts")

    def send(self, message: Message) -> Outcome:
        """Post the alert. 2xx takes it, 410 refuses it for good, everything else has failed for now."""
        parts = urlsplit(message.channel.url)
        attributes: dict[str, str | int] = {
            "http.request.method": "POST",
            "server.address": parts.hostname or "",
            "server.port": parts.port or (443 if parts.scheme == "https" else 80),
            "notification_id": message.notification.id,
        }
        with self._tracer.start_as_current_span("POST", kind=SpanKind.CLIENT, attributes=attributes) as span:
            outcome = self._attempt(message, parts.netloc)
            span.set_attribute("notification.result", outcome.result)
            if outcome.verdict is not Verdict.TAKEN:
                span.set_status(StatusCode.ERROR, outcome.result)
        return outcome

    def _attempt(self, message: Message, host: str) -> Outcome:
        body = firing_payload(alert_to_proto(message.alert, self._links), message.notification.create_time)
        try:
            return self._post(message, {"Host": host, **_headers(message, body)}, body)
        except AddressRefused as error:
            return Outcome(Verdict.REFUSED, f"refused: {error}")
        except httpcore.TimeoutException:
            return Outcome(Verdict.FAILED, f"no answer within {self._timeout.total_seconds():g} s")
        except httpcore.ProtocolError:
            # Its text quotes what the host said.
            return Outcome(Verdict.FAILED, "no answer: the host does not speak HTTP, or broke off")
        except httpcore.NetworkError as error:
            return Outcome(Verdict.FAILED, f"no answer: {error}")

    def _post(self, message: Message, headers: Mapping[bytes | str, bytes | str], body: bytes) -> Outcome:
        network = GuardedNetwork(self._guard, Deadline(self._timeout.total_seconds()))
        with (
            httpcore.ConnectionPool(ssl_context=self._tls, network_backend=network) as pool,
            pool.stream("POST", message.channel.url, headers=headers, content=body) as answer,
        ):
            _discard_body(answer)
            return _judge(answer, message.now)


def _headers(message: Message, body: bytes) -> dict[bytes | str, bytes | str]:
    signature = Webhook(message.secret).sign(message.notification.id, message.now.astimezone(UTC), body.decode())
    context = telemetry.inject()
    return {
        "Content-Type": "application/json",
        "User-Agent": "Meterscope",
        "Connection": "close",
        "webhook-id": message.notification.id,
        "webhook-timestamp": str(int(message.now.timestamp())),
        "webhook-signature": signature,
        **{name: context[name] for name in _TRACE_HEADERS if name in context},
    }


def _discard_body(answer: httpcore.Response) -> None:
    taken = 0
    try:
        for chunk in answer.iter_stream():
            taken += len(chunk)
            if taken > MAX_ANSWER_BYTES:
                return
    except _FAULTS as error:
        _log.debug("answer ended early", extra={"error": str(error), "status": answer.status})


def _judge(answer: httpcore.Response, now: datetime) -> Outcome:
    result = f"HTTP {answer.status}"
    if httpx.codes.is_success(answer.status):
        return Outcome(Verdict.TAKEN, result)
    if answer.status == _GONE:
        return Outcome(Verdict.REFUSED, result)
    return Outcome(Verdict.FAILED, result, _retry_after(answer, now))


def _retry_after(answer: httpcore.Response, now: datetime) -> timedelta | None:
    """Read Retry-After (RFC 9110, 10.2.3): seconds or a date. None where it says nothing that can be used."""
    values = [value for name, value in answer.headers if name.lower() == b"retry-after"]
    text = values[0].decode("ascii", errors="replace").strip() if values else ""
    try:
        if text.isdecimal():
            return timedelta(seconds=int(text))
        at = parsedate_to_datetime(text)
        return max(timedelta(), at.replace(tzinfo=at.tzinfo or UTC) - now)
    except (ValueError, OverflowError):
        return None
