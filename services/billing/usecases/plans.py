"""Plans."""

from collections.abc import Callable
from datetime import datetime

import sqlalchemy as sa

from meterscope.billing.v1 import catalog_service_pb2 as pb
from services.billing.convert import plan as convert
from services.billing.domain import plan_rules
from services.billing.domain.plan import Plan
from services.billing.errors import PlanExists, PlanNotFound
from services.billing.store import plans
from services.kit import paging
from services.kit.db import Database
from services.kit.idempotency import once


class Plans:
    """Creates and shows plans."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    def create(self, request: pb.CreatePlanRequest) -> pb.Plan:
        """Create a plan at version 1; the same content again returns the plan that exists.

        Raises:
            InvalidArgument: a field is wrong.
            PlanExists: the id is taken by a plan with other content.
        """
        with self._database.transaction() as conn:
            return once(
                conn,
                method="CreatePlan",
                request_id=request.request_id,
                request=request,
                response_type=pb.Plan,
                act=lambda: convert.plan(self._create(conn, request.plan)),
            )

    def get(self, plan_id: str) -> Plan:
        """Return the newest version of a plan. Raises PlanNotFound."""
        with self._database.transaction() as conn:
            found = plans.latest(conn, plan_id)
        if found is None:
            raise PlanNotFound(plan_id)
        return found

    def page(self, *, page_size: int, page_token: str) -> tuple[list[Plan], str]:
        """Return a page of plans by id, and the next page's token."""
        size = paging.page_size(page_size)
        after = paging.decode_token(page_token, {}) or [""]
        with self._database.transaction() as conn:
            found = plans.page(conn, after=after[0], limit=size + 1)
        return found[:size], paging.encode_token([found[size - 1].terms.id], {}) if len(found) > size else ""

    def _create(self, conn: sa.Connection, wanted: pb.Plan) -> Plan:
        terms = convert.terms(wanted)
        plan_rules.check(terms)
        plan = Plan(terms, version=1, create_time=self._clock())
        if plans.add(conn, plan):
            return plan
        existing = plans.latest(conn, terms.id)
        if existing is None or existing.terms != terms:
            raise PlanExists(terms.id)
        return existing
