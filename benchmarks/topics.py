"""Broadcast and presence over two servers: `python -m benchmarks.topics [--soak MINUTES]`.

On PostgreSQL and Redis, with two server processes and one tailer, all on this machine:

* deliveries of broadcasts per second, when a few clients send and many on both servers listen,
  compared with one server and no Redis, in alternation;
* presences that join per second, until every client was sent every presence, compared in the same
  way;
* the time until the members of a killed server have left;
* --soak: 200 clients on 20 topics come and go for so many minutes while a server is killed again
  and again; at the end every client must show exactly the clients that are present.

Every message is counted; a lost one is an error.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.chart import bars
from benchmarks.report import Comparison, add_options, conclude, ratios, say, spread, table
from tests.acceptance.support.base_databases import base_database
from tests.acceptance.support.deployment import Deployment, deployed
from tests.acceptance.support.raw_client import RawClient
from tests.acceptance.support.server import Server, make_database, running
from tests.acceptance.support.soak import Soak
from tests.support import redis as redises

_FREE: dict[str, Any] = {
    "LIMITS": {
        "broadcasts_per_second": None,
        "presence_per_30_seconds": None,
        "joins_per_second": None,
    }
}
_PATIENCE = 120.0
ONE, TWO = "one process", "two processes and Redis"
DELIVERIES, JOINS = "deliveries a second", "presences a second"
GONE = "seconds until the members of a killed server have left"


async def broadcasts(servers: Sequence[Server], listeners: int, senders: int, each: int) -> float:
    """Deliveries per second; every listener gets every broadcast of every sender."""
    peers = [await RawClient.open(servers[n % len(servers)]) for n in range(listeners)]
    sending = [await RawClient.open(servers[n % len(servers)]) for n in range(senders)]
    for peer in peers:
        await peer.join("bench")
    refs = [await peer.join("bench", broadcast={"ack": True}) for peer in sending]
    wanted = senders * each
    counts = [0] * listeners

    def count(number: int) -> int:
        frames = peers[number].frames
        counts[number] = sum(frame.event == "broadcast" for frame in frames)
        return counts[number]

    async def send(peer: RawClient, ref: str) -> None:
        for number in range(each):
            body = {"type": "broadcast", "event": "e", "payload": {"n": number, "text": "x" * 150}}
            reply = await peer.push("realtime:bench", "broadcast", body, ref)
            assert reply["status"] == "ok", reply

    began = time.perf_counter()
    await asyncio.gather(*(send(peer, ref) for peer, ref in zip(sending, refs, strict=True)))
    async with asyncio.timeout(_PATIENCE):
        while any(count(number) < wanted for number in range(listeners)):
            await asyncio.sleep(0.01)
    took = time.perf_counter() - began
    assert all(found == wanted for found in counts), counts
    for peer in (*peers, *sending):
        await peer.close()
    return listeners * wanted / took


async def joins(servers: Sequence[Server], members: int) -> float:
    """Presences per second, from the first track until every client was sent every presence."""
    peers = [await RawClient.open(servers[n % len(servers)]) for n in range(members)]
    for number, peer in enumerate(peers):
        await peer.join("crowd", presence={"key": f"m{number}", "enabled": True})

    def seen(peer: RawClient) -> int:
        keys: set[str] = set()
        for frame in peer.frames:
            if frame.event == "presence_state":
                keys |= frame.payload.keys()
            elif frame.event == "presence_diff":
                keys |= frame.payload["joins"].keys()
        return len(keys)

    payload = {"event": "track", "payload": {"n": 1}}
    began = time.perf_counter()
    await asyncio.gather(*(p.push("realtime:crowd", "presence", payload, "1") for p in peers))
    async with asyncio.timeout(_PATIENCE):
        while any(seen(peer) < members for peer in peers):
            await asyncio.sleep(0.01)
    took = time.perf_counter() - began
    for peer in peers:
        await peer.close()
    return members / took


async def until_gone(staying: Server, going: Any) -> float:
    """Seconds from the kill of a server until its members have left."""
    one, two = await RawClient.open(staying), await RawClient.open(going)
    for name, peer in (("stays", one), ("goes", two)):
        await peer.join("gone", presence={"key": name, "enabled": True})
        payload = {"event": "track", "payload": {}}
        await peer.push("realtime:gone", "presence", payload, "1")
    began = time.perf_counter()
    going.kill()
    await one.until(
        lambda f: f.event == "presence_diff" and "goes" in f.payload["leaves"], patience=_PATIENCE
    )
    took = time.perf_counter() - began
    going.start()
    await one.close()
    return took


async def soak(world: Deployment, minutes: float) -> dict[str, Any]:
    victims = iter(range(1_000_000))

    def kill() -> None:
        victim = world.servers[next(victims) % len(world.servers)]
        victim.kill()
        victim.start()

    crowd = Soak(world.servers, clients=200, topics=20)
    try:
        await crowd.run(minutes * 60, kill, every=45)
        settled = await crowd.settle(_PATIENCE)
    finally:
        await crowd.end()
    return {"minutes": minutes, "settled_seconds": round(settled, 1), **crowd.counts}


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    rates = {what: {name: list[float]() for name in (ONE, TWO)} for what in (DELIVERIES, JOINS)}
    found: dict[str, Any] = dict(rates)
    with tempfile.TemporaryDirectory(prefix="rowcast-bench-") as name:
        folder = Path(name)
        single = make_database(folder / "single.sqlite3")
        with (
            running(single, "uvicorn", _FREE) as alone,
            base_database() as base,
            redises.running(folder) as redis,
            deployed(Deployment(folder, base.database(), redis, "pubsub", _FREE)) as world,
        ):
            world.start("uvicorn", "uvicorn")
            deployments: dict[str, Sequence[Server]] = {ONE: [alone], TWO: world.servers}
            hearing = arguments.listeners, arguments.senders, arguments.messages
            for _ in range(arguments.rounds):
                for name, servers in deployments.items():
                    rate = asyncio.run(broadcasts(servers, *hearing))
                    rates[DELIVERIES][name].append(rate)
                for name, servers in deployments.items():
                    rates[JOINS][name].append(asyncio.run(joins(servers, arguments.members)))
            found[GONE] = asyncio.run(until_gone(*world.servers))
            if arguments.soak:
                found["soak"] = asyncio.run(soak(world, arguments.soak))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--listeners", type=int, default=100)
    parser.add_argument("--senders", type=int, default=4)
    parser.add_argument("--messages", type=int, default=100, help="of each sender")
    parser.add_argument("--members", type=int, default=200, help="presences that join at once")
    parser.add_argument("--soak", type=float, default=0.0, metavar="MINUTES")
    add_options(parser, rounds=3)
    arguments = parser.parse_args()
    found = measure(arguments)
    rows = [
        [what, *(spread(found[what][name]) for name in (ONE, TWO))] for what in (DELIVERIES, JOINS)
    ]
    rows.append([GONE, "", f"{found[GONE]:.1f}"])
    say(table(["min / median / max", ONE, TWO], rows))
    for what, value in found.get("soak", {}).items():
        say(f"soak: {what} {value}\n")
    comparisons = [
        Comparison(what, TWO, ONE, ratios(found[what][TWO], found[what][ONE]))
        for what in (DELIVERIES, JOINS)
    ]
    drawn = [
        bars(
            title,
            {name: statistics.median(values) for name, values in found[what].items()},
            what,
            ours=TWO,
        )
        for title, what in (
            (f"Broadcasts to {arguments.listeners:,} sockets", DELIVERIES),
            (f"Until {arguments.members:,} members know of all", JOINS),
        )
    ]
    conclude(arguments, found, comparisons, drawn)


if __name__ == "__main__":
    main()
