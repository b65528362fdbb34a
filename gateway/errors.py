"""What the gateway itself refuses, before any service is asked."""

from collections.abc import Mapping
from http import HTTPStatus


class Refusal(Exception):
    """A request that HTTP itself answers: unknown route, wrong method, too large, wrong host.

    Attributes:
        status: the HTTP status.
        reason: an UPPER_SNAKE_CASE word for programs.
        detail: what was wrong and what to do.
        headers: headers of the answer, such as `Allow`.
    """

    def __init__(
        self, status: HTTPStatus, reason: str, detail: str, *, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.reason = reason
        self.detail = detail
        self.headers = dict(headers or {})


class Stalled(Refusal):
    """A body of which nothing comes any more."""

    def __init__(self, seconds: float) -> None:
        super().__init__(
            HTTPStatus.REQUEST_TIMEOUT,
            "BODY_STALLED",
            f"nothing of the body came for {seconds:g} s (METERSCOPE_STREAM_IDLE_SECONDS); send the request again",
            headers={"connection": "close"},
        )


class UnfitValue(Exception):
    """A JSON value that a field cannot hold. The message says what is wrong and what to send, without the path."""
