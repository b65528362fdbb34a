"""The usage service: takes events in, each once, adds them up, says what limits leave, and freezes periods for billing.

Ingest appends and a rollup aggregates: an accepted event is a row that carries the id of its transaction, and the
rollup adds rows of ended transactions to the totals in the order of those ids, each exactly once.
"""
