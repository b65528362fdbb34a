"""Plans and their versions."""

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import distinct_on, insert

from services.billing import plan_document
from services.billing.domain.plan import Plan
from services.billing.tables import plan_versions


def add(conn: sa.Connection, plan: Plan) -> bool:
    """Insert a version of a plan; False if it is there."""
    statement = (
        insert(plan_versions)
        .values(
            plan_id=plan.terms.id,
            version=plan.version,
            terms=plan_document.write(plan.terms),
            create_time=plan.create_time,
        )
        .on_conflict_do_nothing()
        .returning(plan_versions.c.plan_id)
    )
    return conn.execute(statement).one_or_none() is not None


def latest(conn: sa.Connection, plan_id: str) -> Plan | None:
    """Return the newest version of a plan."""
    query = sa.select(plan_versions).where(plan_versions.c.plan_id == plan_id)
    row = conn.execute(query.order_by(plan_versions.c.version.desc()).limit(1)).one_or_none()
    return None if row is None else _plan(row)


def version(conn: sa.Connection, plan_id: str, number: int) -> Plan:
    """Return a version that is known to exist."""
    query = sa.select(plan_versions).where(plan_versions.c.plan_id == plan_id, plan_versions.c.version == number)
    return _plan(conn.execute(query).one())


def versions(conn: sa.Connection, wanted: Collection[tuple[str, int]]) -> dict[tuple[str, int], Plan]:
    """Return versions that are known to exist, by plan and number."""
    if not wanted:
        return {}
    listed = sa.tuple_(plan_versions.c.plan_id, plan_versions.c.version).in_(sorted(wanted))
    found = map(_plan, conn.execute(sa.select(plan_versions).where(listed)))
    return {(plan.terms.id, plan.version): plan for plan in found}


def names(conn: sa.Connection) -> dict[str, str]:
    """Return every plan's name in its newest version, by the plan's id."""
    query = (
        sa.select(plan_versions.c.plan_id, plan_versions.c.terms["display_name"].astext)
        .ext(distinct_on(plan_versions.c.plan_id))
        .order_by(plan_versions.c.plan_id, plan_versions.c.version.desc())
    )
    return dict(conn.execute(query).all())


def in_currency(conn: sa.Connection, currency: str, *, limit: int) -> list[Plan]:
    """Return the newest versions of the plans in a currency, by id."""
    newest = (
        sa.select(plan_versions)
        .ext(distinct_on(plan_versions.c.plan_id))
        .order_by(plan_versions.c.plan_id, plan_versions.c.version.desc())
        .subquery()
    )
    query = sa.select(newest).where(newest.c.terms["currency"].astext == currency).order_by(newest.c.plan_id)
    return [_plan(row) for row in conn.execute(query.limit(limit))]


def page(conn: sa.Connection, *, after: str, limit: int) -> list[Plan]:
    """Return the newest versions of plans by id, behind the id `after`."""
    versions = plan_versions.c
    newest = (
        sa.select(versions.plan_id, sa.func.max(versions.version).label("version"))
        .where(versions.plan_id > after)
        .group_by(versions.plan_id)
        .order_by(versions.plan_id)
        .limit(limit)
        .subquery()
    )
    these = (newest.c.plan_id == versions.plan_id) & (newest.c.version == versions.version)
    query = sa.select(plan_versions).join(newest, these).order_by(versions.plan_id)
    return [_plan(row) for row in conn.execute(query)]


def _plan(row: sa.Row[Any]) -> Plan:
    return Plan(terms=plan_document.read(row.terms), version=row.version, create_time=row.create_time)
