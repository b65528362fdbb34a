"""Which stored events count: all that no correction has removed.

The one place that says so. Whoever reads raw events to make or check totals (recounts, edges, the drift check, a query
that is answered from raw events) puts this condition beside its own on the place in the order of transactions; the
rollup's slices need it not, since a correction's own turn sets what it touches anew (docs/decisions/0011).
"""

from typing import Final

# `event` is the alias of a row of events; `generation` and `upto` are expressions of the place that the reader has come
# to: corrections of transactions below it are known, those of later ones are not yet.
COUNTED: Final = """
    NOT EXISTS (SELECT FROM corrections AS removed
                WHERE removed.customer = {event}.customer AND removed.digest = {event}.digest
                    AND (removed.generation, removed.tx) < ({generation}, {upto}))
"""
# Raw events before it may be gone: nothing that happened earlier is counted from them. An expression of its own.
KEPT_FROM: Final = "(SELECT coalesce(max(time), '-infinity') FROM floors WHERE name = 'raw')"
# The same for a reader of whatever has committed.
COUNTED_NOW: Final = """
    NOT EXISTS (SELECT FROM corrections AS removed
                WHERE removed.customer = {event}.customer AND removed.digest = {event}.digest)
"""
