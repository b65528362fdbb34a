"""The SQL that says which events a meter counts and what it knows of them: `e` is a row of events, `m` of meters."""

from typing import Final

TX: Final = "CAST(CAST(:{} AS text) AS xid8)"
# Rows that the rollup has yet to come to. What an older generation left was taken in before this one began, whatever the
# ids of its rows.
AHEAD: Final = f"generation = :generation AND tx >= {TX.format('last')}"
NO_GROUP: Final = "CAST('00000000-0000-0000-0000-000000000000' AS uuid)"
# Of what a meter counted only after the seal that it would belong to.
NEVER_BILLED: Final = -1
# Those that the rollup adds up without looking at attributes: they cost least.
PLAIN: Final = "(m.aggregation IN ('COUNT', 'SUM') AND m.filter IS NULL AND m.group_by = '{}')"

_NOT_ARCHIVED: Final = "(m.until_tx IS NULL OR (e.generation, e.tx) < (m.until_generation, m.until_tx))"
_AFTER_CREATION: Final = "(m.generation, m.from_tx) <= (e.generation, e.tx)"
# What the rollup takes, turn by turn.
TAKEN: Final = f"m.event_type = e.type AND {_AFTER_CREATION} AND {_NOT_ARCHIVED}"
# With those before it that a recount takes.
COUNTS: Final = f"m.event_type = e.type AND ({_AFTER_CREATION} OR e.time >= m.count_from) AND {_NOT_ARCHIVED}"
# Its attributes, and that it has what the meter looks at: without its quantity an event adds 0 to a SUM and is nothing
# to the others.
MATCHES: Final = """
    (m.filter IS NULL OR coalesce(e.attributes @@ m.filter, false))
    AND CASE WHEN m.aggregation IN ('COUNT', 'SUM') THEN true
             WHEN m.aggregation = 'UNIQUE' THEN e.attributes ? m.attribute
             ELSE e.quantities ? m.quantity END
"""
# The seal that its total belongs to.
SEAL: Final = f"""
    CASE WHEN {_AFTER_CREATION} THEN e.seal
         WHEN EXISTS (SELECT FROM seals AS s WHERE s.customer = e.customer AND s.end_time > e.time
                          AND s.sealed_at < m.sealed_before) THEN {NEVER_BILLED}
         ELSE e.seal END
"""
QUARTER: Final = "date_bin('15 minutes', e.time, TIMESTAMPTZ '2000-01-01')"
# The bucket, cut at period boundaries within the quarter.
BUCKET: Final = f"""
    greatest({QUARTER}, (SELECT max(g.time) FROM edges AS g
                         WHERE g.customer = e.customer AND g.quarter = {QUARTER} AND g.time <= e.time))
"""  # noqa: S608 - the parts are constants
QUANTITY: Final = "CAST(e.quantities -> m.quantity AS numeric)"
DIGEST: Final = "CAST(encode(substring(sha256(convert_to({}, 'UTF8')) FOR 16), 'hex') AS uuid)"
# By one attribute, as most are, without a query of its own for each event.
_GROUP_VALUES: Final = """
    CASE cardinality(m.group_by)
        WHEN 0 THEN NULL
        WHEN 1 THEN CASE WHEN e.attributes ? m.group_by[1]
                         THEN jsonb_build_object(m.group_by[1], e.attributes -> m.group_by[1]) END
        ELSE (SELECT jsonb_object_agg(name, e.attributes -> name) FROM unnest(m.group_by) AS name
              WHERE e.attributes ? name) END
"""
_GROUP_KEY: Final = f"coalesce({DIGEST.format('CAST(group_values AS text)')}, {NO_GROUP})"
# The largest of rows has no type of its own: by way of JSON it gets one back, and no group need be sorted for it.
_TYPED: Final = "(jsonb_populate_record(CAST(NULL AS latest), to_jsonb({})))"
_LATEST: Final = _TYPED.format(
    "max(CAST(ROW({0}.latest_time, {0}.latest_id, {0}.latest_value) AS latest)) "
    "FILTER (WHERE {0}.latest_time IS NOT NULL)"
)

_RAW_KEY: Final = "customer, meter, start_time, seal, group_values"
STATE: Final = "count, sum, min, max, latest_time, latest_id, latest_value"


def events(found: str, *, start: str, seal: str) -> str:
    """Return a query for a meter's events: customer, meter, bucket, seal, group, and what counts of it.

    Args:
        found: from what: events and meters, joined, with the conditions.
        start: an expression for the first instant of what it is counted under.
        seal: an expression for its seal.
    """
    return f"""
        SELECT e.customer, m.number AS meter, m.aggregation, {start} AS start_time, {seal} AS seal,
               {_GROUP_VALUES} AS group_values, {QUANTITY} AS quantity, e.attributes ->> m.attribute AS text, e.time, e.id
        FROM {found} AND {MATCHES}
    """  # noqa: S608


def aggregated(events: str, key: str) -> str:
    """Return a query for the states of events (see `events`), with the newest event's time, by a key.

    Args:
        events: the query.
        key: columns, separated by commas.
    """
    latest = _TYPED.format("max(CAST(ROW(time, id, quantity) AS latest)) FILTER (WHERE aggregation = 'LATEST')")
    return f"""
        SELECT {key}, count(*) AS count, coalesce(sum(quantity) FILTER (WHERE aggregation IN ('SUM', 'AVG')), 0) AS sum,
               min(quantity) FILTER (WHERE aggregation = 'MIN') AS min,
               max(quantity) FILTER (WHERE aggregation = 'MAX') AS max,
               {latest}.time AS latest_time, {latest}.id AS latest_id, {latest}.value AS latest_value,
               max(time) AS newest
        FROM ({events}) AS counted
        GROUP BY {key}
    """  # noqa: S608


def totals(found: str, *, start: str, seal: str) -> str:
    """Return a query for bucket totals with their group's key and values, and the newest event's time (see `events`).

    A group's key is worked out once a group, not once an event.
    """
    counted = aggregated(events(found, start=start, seal=seal), _RAW_KEY)
    return f"SELECT t.*, {_GROUP_KEY} AS group_key FROM ({counted}) AS t"  # noqa: S608


def values(found: str, *, start: str, seal: str) -> str:
    """Return a query for the different values of UNIQUE meters' buckets, as digests (see `events`)."""
    return f"""
        SELECT customer, meter, start_time, seal, {_GROUP_KEY} AS group_key, {DIGEST.format("text")} AS digest
        FROM (SELECT DISTINCT {_RAW_KEY}, text
              FROM ({events(f"{found} AND m.aggregation = 'UNIQUE'", start=start, seal=seal)}) AS e) AS v
    """  # noqa: S608


def merged(alias: str) -> str:
    """Return the columns of the state that the states of a group of rows merge into. Values merge by themselves."""
    latest = _LATEST.format(alias)
    return f"""
        sum({alias}.count) AS count, sum({alias}.sum) AS sum, min({alias}.min) AS min, max({alias}.max) AS max,
        {latest}.time AS latest_time, {latest}.id AS latest_id, {latest}.value AS latest_value
    """


def value(alias: str) -> str:
    """Return the value that the states of a group of rows have together; null of no events, but for COUNT, SUM, UNIQUE.

    Of UNIQUE, the rows' sums must be disjoint counts of values, as they are in period totals. An average is rounded to
    12 decimals; the factor has the division keep more.
    """
    return f"""
        CASE m.aggregation
            WHEN 'COUNT' THEN sum({alias}.count) WHEN 'MIN' THEN min({alias}.min) WHEN 'MAX' THEN max({alias}.max)
            WHEN 'AVG' THEN trim_scale(round(
                sum({alias}.sum) * 1.000000000000000000000000000000 / nullif(sum({alias}.count), 0), 12))
            WHEN 'LATEST' THEN {_LATEST.format(alias)}.value
            ELSE sum({alias}.sum) END
    """


def added(old: str, new: str) -> str:
    """Return the assignments that merge a new row's state into an old one's."""
    is_newer = f"""
        coalesce(({new}.latest_time, {new}.latest_id, {new}.latest_value)
                 > ({old}.latest_time, {old}.latest_id, {old}.latest_value), {old}.latest_time IS NULL)
    """
    latest = ", ".join(
        f"{column} = CASE WHEN {is_newer} THEN {new}.{column} ELSE {old}.{column} END"
        for column in ("latest_time", "latest_id", "latest_value")
    )
    return f"""
        count = {old}.count + {new}.count, sum = {old}.sum + {new}.sum, min = least({old}.min, {new}.min),
        max = greatest({old}.max, {new}.max), {latest}
    """


def replaced(new: str) -> str:
    """Return the assignments that put a new row's state in an old one's place."""
    return ", ".join(f"{column.strip()} = {new}.{column.strip()}" for column in STATE.split(","))
