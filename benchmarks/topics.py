"""Broadcast and presence over two servers: `python -m benchmarks.topics [--soak MINUTES]`.

On PostgreSQL and Redis, with two server processes and one tailer, all on this machine:

* How many broadcasts are delivered per second, when a few clients send and many on both servers
  listen? Against the same with one server and no Redis.
* How many presences can join per second, until everybody has been told of everybody?
* How long until the members of a server that was killed have left?
* --soak: 200 clients on 20 topics come and go for so many minutes while a server is killed again
  and again; at the end every client must show who is really there.

Prints a table and writes JSON with --json. Every message is counted; a lost one is an error.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests import redis as redises
from tests.acceptance.deployment import Deployment, deployed
from tests.acceptance.ground import ground
from tests.acceptance.peer import Peer
from tests.acceptance.server import Server, make_database, running
from tests.acceptance.soak import Soak

_FREE: dict[str, Any] = {
    "LIMITS": {
        "broadcasts_per_second": None,
        "presence_per_30_seconds": None,
        "joins_per_second": None,
    }
}
_PATIENCE = 120.0


async def broadcasts(servers: Sequence[Server], listeners: int, senders: int, each: int) -> float:
    """Deliveries per second: every listener hears every broadcast of every sender."""
    peers = [await Peer.open(servers[n % len(servers)]) for n in range(listeners)]
    sending = [await Peer.open(servers[n % len(servers)]) for n in range(senders)]
    for peer in peers:
        await peer.join("bench")
    refs = [await peer.join("bench", broadcast={"ack": True}) for peer in sending]
    wanted = senders * each
    counts = [0] * listeners

    def count(number: int) -> int:
        frames = peers[number].frames
        counts[number] = sum(frame.event == "broadcast" for frame in frames)
        return counts[number]

    async def send(peer: Peer, ref: str) -> None:
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
    """Presences per second, from the first track until everybody was told of everybody."""
    peers = [await Peer.open(servers[n % len(servers)]) for n in range(members)]
    for number, peer in enumerate(peers):
        await peer.join("crowd", presence={"key": f"m{number}", "enabled": True})

    def seen(peer: Peer) -> int:
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
    one, two = await Peer.open(staying), await Peer.open(going)
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


def of(values: list[float]) -> dict[str, float]:
    return {
        "min": round(min(values), 1),
        "median": round(statistics.median(values), 1),
        "max": round(max(values), 1),
    }


def measure(rounds: int, minutes: float) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        one: list[float] = []
        two: list[float] = []
        joined: list[float] = []
        gone: list[float] = []
        single = make_database(folder / "single.sqlite3")
        with (
            running(single, "uvicorn", _FREE) as alone,
            ground(folder) as base,
            redises.running(folder) as redis,
            deployed(Deployment(folder, base.database(), redis, "pubsub", _FREE)) as world,
        ):
            world.start("uvicorn", "uvicorn")
            for _ in range(rounds):
                one.append(asyncio.run(broadcasts([alone], 100, 4, 100)))
                two.append(asyncio.run(broadcasts(world.servers, 100, 4, 100)))
                joined.append(asyncio.run(joins(world.servers, 200)))
            gone.append(asyncio.run(until_gone(*world.servers)))
            found = {
                "deliveries_per_second_one_process": of(one),
                "deliveries_per_second_two_processes": of(two),
                "ratio": round(statistics.median(two) / statistics.median(one), 2),
                "presence_joins_per_second": of(joined),
                "seconds_until_a_killed_servers_members_left": of(gone),
            }
            if minutes:
                found["soak"] = asyncio.run(soak(world, minutes))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--soak", type=float, default=0.0, metavar="MINUTES")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = measure(options.rounds, options.soak)
    for name, value in found.items():
        print(f"{name:48} {value}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
