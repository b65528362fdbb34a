"""Errors as types: the domain raises them, one interceptor turns them into a gRPC status (see interceptors.py).

    ServiceError
    ├── InvalidArgument      INVALID_ARGUMENT     the caller must change the request
    ├── NotFound             NOT_FOUND            the named thing is not there
    ├── AlreadyExists        ALREADY_EXISTS       the name is taken by something else
    ├── FailedPrecondition   FAILED_PRECONDITION  right request, wrong state
    ├── Aborted              ABORTED              lost a race; the same request may succeed now
    ├── Unauthenticated      UNAUTHENTICATED      who is asking?
    ├── PermissionDenied     PERMISSION_DENIED    not for this caller
    ├── ResourceExhausted    RESOURCE_EXHAUSTED   a limit is reached; `retry_after` where it will pass by itself
    └── Unavailable          UNAVAILABLE          try again after `retry_after` seconds; nothing was acknowledged

A service derives its own (`class InvoiceNotFound(NotFound)`) with one sentence each. `reason` travels as
`google.rpc.ErrorInfo.reason`, `metadata` beside it, `violations` as `google.rpc.BadRequest`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class FieldViolation:
    """What is wrong with one field of a request.

    Attributes:
        field: the path as the caller wrote it, in snake_case (`plan.components[2].per_unit.meter`).
        description: the value, the limit and what to do.
    """

    field: str
    description: str


class ServiceError(Exception):
    """The root. `status` is the name of a `grpc.StatusCode`, `reason` an UPPER_SNAKE_CASE word for programs."""

    status: ClassVar[str] = "INTERNAL"
    reason: str = "INTERNAL"
    # Seconds after which the same request may succeed; None if nothing is known of that.
    retry_after: float | None = None

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[FieldViolation] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        if reason is not None:
            self.reason = reason
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)


class InvalidArgument(ServiceError):
    """The request is wrong whatever the state of the system. Name the field."""

    status = "INVALID_ARGUMENT"
    reason = "INVALID_ARGUMENT"

    @classmethod
    def at(cls, field: str, description: str, *, reason: str | None = None) -> "InvalidArgument":
        """The usual case: one field is wrong."""
        return cls(f"{field}: {description}", reason=reason, violations=[FieldViolation(field, description)])


class NotFound(ServiceError):
    """The named thing is not there."""

    status = "NOT_FOUND"
    reason = "NOT_FOUND"


class AlreadyExists(ServiceError):
    """The name is taken by something else."""

    status = "ALREADY_EXISTS"
    reason = "ALREADY_EXISTS"


class FailedPrecondition(ServiceError):
    """The request is right, the state of the system is not."""

    status = "FAILED_PRECONDITION"
    reason = "FAILED_PRECONDITION"


class Aborted(ServiceError):
    """The request lost a race; sent again, it may succeed."""

    status = "ABORTED"
    reason = "ABORTED"


class Unauthenticated(ServiceError):
    """The caller did not say who it is, or not credibly."""

    status = "UNAUTHENTICATED"
    reason = "UNAUTHENTICATED"


class PermissionDenied(ServiceError):
    """The caller is known and may not."""

    status = "PERMISSION_DENIED"
    reason = "PERMISSION_DENIED"


class ResourceExhausted(ServiceError):
    """A limit is reached. `retry_after` (seconds) says when to come back, if it passes by itself."""

    status = "RESOURCE_EXHAUSTED"
    reason = "RESOURCE_EXHAUSTED"

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[FieldViolation] = (),
    ) -> None:
        super().__init__(message, reason=reason, metadata=metadata, violations=violations)
        self.retry_after = retry_after


class Unavailable(ServiceError):
    """Something that is needed is away. Nothing was acknowledged; `retry_after` (seconds) says when to come back."""

    status = "UNAVAILABLE"
    reason = "UNAVAILABLE"

    def __init__(self, message: str, *, retry_after: float = 1.0, reason: str | None = None) -> None:
        super().__init__(message, reason=reason)
        self.retry_after = retry_after
