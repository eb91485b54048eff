"""`slow_reader.py` in small, so that it cannot rot."""

from benchmarks.slow_reader import main


async def test_a_reader_that_stops_costs_no_memory_and_no_other_reader_an_event() -> None:
    await main(events=6_000)
