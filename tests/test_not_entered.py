"""A subscription that is asked for, and entered later or never: what it keeps, and what it knows of revocations."""

from __future__ import annotations

import gc

import pytest

from fraiseql_subs import Forbidden, SecurityContext

from .support import manager_of
from .test_leaks import rss


async def test_one_that_is_not_entered_keeps_no_revocations_of_others():
    manager = manager_of()
    async with manager:
        asked = [manager.subscribe("subscription { orders { id } }", context=SecurityContext(n)) for n in range(3)]
        for n in range(2_000):
            await manager.revoke(user_id=f"{n} {'x' * 1_000}")
        gc.collect()
        before = rss()
        for n in range(2_000, 22_000):
            await manager.revoke(user_id=f"{n} {'x' * 1_000}")
        gc.collect()
        assert rss() - before < 6 * 2**20
        # They know of what concerns them all the same.
        await manager.revoke(user_id=1)
        await manager.revoke(tenant_id="other")
        async with asked[0], asked[2]:
            assert manager.get_metrics()["subscriptions"] == 2
        with pytest.raises(Forbidden):
            await asked[1].__aenter__()


async def test_one_that_was_asked_for_in_an_earlier_run_knows_of_revocations():
    manager = manager_of()
    async with manager:
        by_label, by_tenant, other = (
            manager.subscribe("subscription { orders { id } }", connection_id=label, context=SecurityContext(1, tenant))
            for label, tenant in (("a", None), (None, "t"), ("b", "u"))
        )
        await manager.revoke(connection_id="a")
        await manager.revoke(tenant_id="t", user_id=1)
    async with manager:
        for revoked in (by_label, by_tenant):
            with pytest.raises(Forbidden):
                await revoked.__aenter__()
        async with other:
            assert manager.get_metrics()["subscriptions"] == 1
