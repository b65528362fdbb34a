"""How much of their limits customers have used, for the gauge."""

from typing import Final

import sqlalchemy as sa

from services.usage.metrics import Share
from services.usage.store import states
from services.usage.store.customers import PERIOD_START

_NOW: Final = PERIOD_START.format(customer="c.number", zone="c.time_zone", instant="now()")
_SHARES: Final = sa.text(
    f"""
    SELECT c.id AS customer_id, m.id AS meter_id,
           coalesce(round(100 * {states.value("t")} / l.amount, 2), 0)
               AS percent
    FROM (
        SELECT customer, meter, amount FROM limits
        UNION ALL
        SELECT c.number, d.meter, d.amount FROM default_limits AS d JOIN customers AS c ON NOT c.has_plan
        WHERE NOT EXISTS (SELECT FROM limits AS own WHERE own.customer = c.number AND own.meter = d.meter)
    ) AS l
    JOIN customers AS c ON c.number = l.customer
    JOIN meters AS m ON m.id = l.meter
    LEFT JOIN period_totals AS t ON t.customer = c.number AND t.meter = m.number AND t.period_start = {_NOW}
    WHERE l.amount > 0
    GROUP BY c.id, m.number, l.amount
    ORDER BY percent DESC LIMIT :most
    """  # noqa: S608 - the parts are constants
)


def highest(conn: sa.Connection, most: int) -> list[Share]:
    """Return the highest shares of limits in current periods."""
    found = conn.execute(_SHARES, {"most": most})
    return [Share(row.customer_id, row.meter_id, float(row.percent)) for row in found]
