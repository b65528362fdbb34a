"""Single runners by a lease in the database."""

from datetime import timedelta

import pytest
import sqlalchemy as sa

from services.kit.leases import Lease
from services.kit.outbox import LeaseLost
from services.kit.tables import leases
from tests.eventually import eventually
from tests.kit.conftest import Store

LONG = timedelta(minutes=1)


def test_one_holder_at_a_time(store: Store) -> None:
    first, second = Lease(store.database, "rollup 0", LONG), Lease(store.database, "rollup 0", LONG)
    other = Lease(store.database, "rollup 1", LONG)
    assert (first.acquire(), second.acquire(), other.acquire()) == (True, False, True)
    assert (first.held, second.held) == (True, False)


def test_a_holder_keeps_its_token_while_it_renews(store: Store) -> None:
    lease = Lease(store.database, "rollup", LONG)
    assert (lease.acquire(), lease.acquire(), lease.renew()) == (True, True, True)
    assert lease.token == 1


def test_a_released_lease_is_free_at_once_under_a_new_token(store: Store) -> None:
    first, second = Lease(store.database, "rollup", LONG), Lease(store.database, "rollup", LONG)
    first.acquire()
    first.release()
    assert not first.held
    assert second.acquire()
    assert (second.token, first.renew()) == (2, False)


def test_an_expired_lease_is_taken_and_its_old_holder_writes_nothing(store: Store) -> None:
    first, second = Lease(store.database, "rollup", LONG), Lease(store.database, "rollup", LONG)
    first.acquire()
    with store.database.transaction() as conn:
        first.fence(conn)
        store.effect(conn, "first")
    expire(store)
    assert second.acquire()
    with (
        pytest.raises(LeaseLost, match="lease rollup is held by another process"),
        store.database.transaction() as conn,
    ):
        store.effect(conn, "too late")
        first.fence(conn)
    assert (store.effects(), first.held, first.renew()) == (["first"], False, False)


def test_a_lease_that_ran_out_comes_back_under_a_new_token(store: Store) -> None:
    lease = Lease(store.database, "rollup", LONG)
    lease.acquire()
    expire(store)
    assert not lease.renew()
    assert lease.acquire()
    assert lease.token == 2


def test_a_fenced_lease_does_not_change_hands_before_the_transaction_ends(store: Store) -> None:
    ttl = timedelta(milliseconds=300)
    first, second = Lease(store.database, "rollup", ttl), Lease(store.database, "rollup", LONG)
    first.acquire()
    with store.database.transaction() as conn:
        first.fence(conn)
        eventually(lambda: not first.held)
        # It has run out, but whoever takes it has to wait for us.
        with store.database.transaction() as asking:
            free = sa.select(leases.c.name).with_for_update(skip_locked=True)
            assert asking.execute(free).all() == []
        store.effect(conn, "fenced")
    # By our clock it ends a little earlier than by the database's: the time is counted from before the question.
    eventually(second.acquire)
    assert store.effects() == ["fenced"]


def expire(store: Store) -> None:
    with store.database.transaction() as conn:
        conn.execute(sa.update(leases).values(expires_at=sa.func.now() - timedelta(seconds=1)))
