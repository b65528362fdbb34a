"""Which seals were frozen before a meter counted stored events; months that begin where a zone's clock shows so first."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# By number a seal that was made and not frozen yet would pass for one that was.
SEALED_BEFORE = """
ALTER TABLE meters ADD COLUMN sealed_before timestamptz;
UPDATE meters AS m
SET sealed_before = coalesce((SELECT min(r.created_at) FROM recounts AS r
                              WHERE r.meter = m.number AND r.start_time <= m.count_from), m.create_time)
WHERE m.count_from IS NOT NULL;
ALTER TABLE meters DROP COLUMN sealed_upto;
"""
# Totals of months that began at the second of two midnights: the rollup sets them anew from the first one on.
MONTHS = """
CREATE TEMPORARY TABLE moved_months ON COMMIT DROP AS
SELECT DISTINCT t.customer, t.period_start AS last,
       t.period_start - ((t.period_start - interval '1 microsecond') AT TIME ZONE c.time_zone
                         - t.period_start AT TIME ZONE c.time_zone + interval '1 microsecond') AS first
FROM period_totals AS t JOIN customers AS c ON c.number = t.customer
WHERE date_trunc('month', t.period_start - interval '1 microsecond', c.time_zone) = t.period_start
    AND NOT EXISTS (SELECT FROM periods AS p WHERE p.customer = t.customer AND p.start_time = t.period_start);
UPDATE thresholds AS t SET period_start = m.first
FROM moved_months AS m WHERE t.customer = m.customer AND t.period_start = m.last;
INSERT INTO changes (customer, tx, generation, recount_from, context)
SELECT customer, pg_current_xact_id(), (SELECT max(number) FROM generations), min(first), '{}'
FROM moved_months GROUP BY customer;
"""


def upgrade() -> None:
    """Both."""
    op.execute(SEALED_BEFORE)
    op.execute(MONTHS)


def downgrade() -> None:
    """Go by the numbers of seals; months stay where they begin."""
    op.execute(
        """
        ALTER TABLE meters ADD COLUMN sealed_upto bigint;
        UPDATE meters AS m
        SET sealed_upto = coalesce((SELECT max(s.number) FROM seals AS s WHERE s.sealed_at < m.sealed_before), 0)
        WHERE m.count_from IS NOT NULL;
        ALTER TABLE meters DROP COLUMN sealed_before;
        """
    )
