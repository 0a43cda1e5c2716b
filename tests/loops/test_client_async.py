"""The verbs of `Client` in asyncio."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import pytest
from ase import Atoms
from ase.calculators.calculator import SCFError

from aserpc import AsyncClient
from aserpc.errors import BrokerUnreachableError
from support.asking import atom
from support.calculators import Failing, Spring
from support.gated import Gated
from support.service import Service
from support.waiting import InThread, wait_for

Test = Callable[[AsyncClient], Coroutine[Any, Any, None]]


@pytest.fixture
def served(service: Service) -> Service:
    """A service with a calculator that works and one that may fail."""
    service.start_broker()
    for _ in range(2):
        service.start_worker("spring", Spring)
    service.start_worker("failing", Failing)
    return service


def run(service: Service, test: Test) -> None:
    """Run a test with a client."""

    async def whole() -> None:
        async with AsyncClient(service.frontend, 10_000) as client:
            await asyncio.wait_for(test(client), 40)

    asyncio.run(whole())


def bad() -> Atoms:
    """Return an atom that the calculator fails for."""
    atoms = atom(1)
    atoms.info["error"] = "SCFError"
    return atoms


def test_submitted_requests_are_awaited(served: Service) -> None:
    async def test(client: AsyncClient) -> None:
        futures = [client.submit("spring", atom(x)) for x in range(50)]
        assert [(await future)["energy"] for future in futures] == [x * x / 2 for x in range(50)]
        results = await client.submit("spring", atom(2), ["energy"], priority=2, deadline=20)
        assert results.provenance["factory"]
        with pytest.raises(SCFError):
            await client.submit("failing", bad())
        for done in asyncio.as_completed([client.submit("spring", atom(2)) for _ in range(3)]):
            assert (await done)["energy"] == 2

    run(served, test)


def test_the_loop_goes_on_while_a_request_waits(gated: Gated) -> None:
    async def test(client: AsyncClient) -> None:
        future = client.submit("gate", atom(2))
        for _ in range(100):
            await asyncio.sleep(0)
        assert not future.done()
        gated.open()
        assert (await future)["energy"] == 2

    run(gated.service, test)


def test_a_cancelled_task_drops_its_request(gated: Gated) -> None:
    async def test(client: AsyncClient) -> None:
        first = client.submit("gate", atom(1))
        second = asyncio.ensure_future(client.submit("gate", atom(2)))
        await asyncio.to_thread(wait_for, lambda: gated.pending() == 1)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        await asyncio.to_thread(wait_for, lambda: gated.pending() == 0)
        gated.open()
        await first
        assert gated.started() == 1

    run(gated.service, test)


def test_a_map_is_in_order_and_takes_a_window(served: Service) -> None:
    taken = 0

    def structures() -> Iterator[Atoms]:
        nonlocal taken
        for x in range(10**6):
            taken += 1
            yield atom(x)

    async def test(client: AsyncClient) -> None:
        x = 0
        async for results in client.map("spring", structures(), window=20):
            assert results["energy"] == x * x / 2
            assert taken <= x + 20
            x += 1
            if x == 100:
                break
        assert not client._client._waiting or await asyncio.to_thread(
            wait_for, lambda: not client._client._waiting
        )

    run(served, test)


def test_a_map_of_an_async_iterable(served: Service) -> None:
    async def structures() -> AsyncIterator[Atoms]:
        for x in range(5):
            await asyncio.sleep(0)
            yield atom(x)
        raise OSError("the stream ends here")

    async def test(client: AsyncClient) -> None:
        results = client.map("spring", structures())
        found = [(await anext(results))["energy"] for _ in range(5)]
        with pytest.raises(OSError, match="ends here"):
            await anext(results)
        assert found == [x * x / 2 for x in range(5)]

    run(served, test)


def test_errors_of_a_map_are_raised_or_returned(served: Service) -> None:
    async def test(client: AsyncClient) -> None:
        given = [atom(2), bad(), atom(4)]
        one, two, three = [
            found async for found in client.map("failing", given, return_exceptions=True)
        ]
        assert isinstance(two, SCFError)
        assert not isinstance(one, Exception)
        assert not isinstance(three, Exception)
        assert (one["energy"], three["energy"]) == (2, 8)
        with pytest.raises(SCFError):
            [found async for found in client.map("failing", given)]

    run(served, test)


def test_mistakes_are_raised_at_once(served: Service) -> None:
    async def test(client: AsyncClient) -> None:
        with pytest.raises(TypeError, match=r"write \[atoms\]"):
            client.map("spring", atom(1))
        with pytest.raises(TypeError, match="list of names"):
            client.map("spring", [], "energy")
        with pytest.raises(ValueError, match="window is a number"):
            client.map("spring", [], window=0)
        one = client.submit("spring", atom(1))
        with pytest.raises(TypeError, match="list or iterator of awaitables, not one"):
            client.gather(one)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="awaitable is required"):
            client.gather([1])  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="then is a function of the list of results, not 3"):
            client.gather([one], 3)  # type: ignore[arg-type]
        assert (await one)["energy"] == 0.5

    run(served, test)


def test_evaluated_structures_are_copies_with_results(served: Service) -> None:
    async def test(client: AsyncClient) -> None:
        given = [atom(x) for x in range(3)]
        found = await client.evaluate("spring", given)
        assert [a.get_potential_energy() for a in found] == [x * x / 2 for x in range(3)]
        assert all(a.calc is None for a in given)
        with pytest.raises(SCFError):
            await client.evaluate("failing", [bad()])
        (error,) = await client.evaluate("failing", [bad()], return_exceptions=True)
        assert isinstance(error, SCFError)

    run(served, test)


def test_gathered_futures_and_what_is_made_of_them(served: Service) -> None:
    async def test(client: AsyncClient) -> None:
        async def then(results: list[Any]) -> float:
            energy = sum(r["energy"] for r in results)
            return float((await client.submit("spring", atom(energy)))["energy"])

        futures = [client.submit("spring", atom(2)) for _ in range(3)]
        assert [r["energy"] for r in await client.gather(futures)] == [2, 2, 2]
        assert await client.gather(futures, len) == 3
        one = client.gather(futures, then)
        assert await client.gather([one, one], sum) == 36
        with pytest.raises(SCFError):
            await client.gather([client.submit("failing", bad())], len)

    run(served, test)


@pytest.mark.parametrize("turns", [0, 1, 3])
@pytest.mark.parametrize("then", [None, len])
def test_cancelling_what_is_gathered_cancels_all(
    gated: Gated, then: Callable[[list[Any]], Any] | None, turns: int
) -> None:
    async def test(client: AsyncClient) -> None:
        futures = [client.submit("gate", atom(x)) for x in range(3)]
        whole = client.gather(futures, then)
        for _ in range(turns):
            await asyncio.sleep(0)
        whole.cancel()
        with pytest.raises(asyncio.CancelledError):
            await whole
        assert all(future.cancelled() for future in futures)
        await asyncio.to_thread(wait_for, lambda: not gated.pending())

    run(gated.service, test)
    gated.open()


def test_the_end_of_the_block_cancels_what_waits(gated: Gated) -> None:
    async def whole() -> list[asyncio.Future[Any]]:
        async with AsyncClient(gated.service.frontend, 10_000) as client:
            futures = [client.submit("gate", atom(x)) for x in range(3)]
            mapped = asyncio.ensure_future(anext(aiter(client.map("gate", [atom(1)]))))
            await asyncio.to_thread(wait_for, gated.started)
        with pytest.raises(concurrent.futures.CancelledError):
            await mapped
        await asyncio.wait(futures, timeout=20)
        return futures

    assert all(future.cancelled() for future in asyncio.run(whole()))
    wait_for(lambda: not gated.pending())
    gated.open()


def test_a_loop_that_is_closed_disturbs_nobody(
    gated: Gated, caplog: pytest.LogCaptureFixture
) -> None:
    client = AsyncClient(gated.service.frontend, 10_000)

    async def leave() -> None:
        client.submit("gate", atom(1))

    asyncio.run(leave())
    gated.open()
    other = gated.service.client()
    with caplog.at_level(logging.WARNING):
        assert other.submit("gate", atom(2)).result(20)["energy"] == 2
    assert not caplog.records
    asyncio.run(client.close())


def test_a_client_serves_several_loops(served: Service) -> None:
    client = AsyncClient(served.frontend, 10_000)

    async def energy() -> float:
        return float((await client.submit("spring", atom(2)))["energy"])

    threads = [InThread(lambda: asyncio.run(energy())) for _ in range(4)]
    assert [thread.result() for thread in threads] == [2] * 4
    asyncio.run(client.close())


def test_without_a_broker_the_block_is_not_begun(service: Service) -> None:
    async def test(client: AsyncClient) -> None:
        raise AssertionError("it has begun")

    with pytest.raises(BrokerUnreachableError):
        run(service, test)
