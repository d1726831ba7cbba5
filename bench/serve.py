"""How the service bears a crowd: many clients at once with mixed calls over a made-up library, on
loopback.

    python bench/serve.py --work DIR

Two processes: `ponticello serve` and this one. Each client asks, waits for the answer, thinks for a
while, asks again; with --think 0 all ask as fast as they are answered, which measures the most that
can be served. First come single searches, one after the other, which is what one person at the
explorer waits for.
"""

import argparse
import asyncio
import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

import numpy as np
import psutil

from large_library import TEXTS, make_large_library, serving
from ponticello.datasets.simulated import USER_PREFIX

SINGLE = 300  # searches one after the other
WARM_SHARE = 0.2  # of the time, after which memory is looked at for the first time
TIMEOUT_S = 60.0
Call = Callable[[], tuple[str, bytes]]  # makes a call: path and body


@dataclass
class Seen:
    """Seconds of each call by kind, and what went wrong."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    errors: Counter[str] = field(default_factory=Counter)


def calls(n_tracks: int, n_listeners: int, chance: random.Random) -> dict[str, tuple[float, Call]]:
    """Each kind of call: how often, and how to make one: (request line's path, body)."""

    def track() -> str:
        return f"track-{chance.randrange(n_tracks):07d}"

    def ask() -> bytes:
        terms = [
            {"text": chance.choice(TEXTS)},
            {"track_id": track()},
            {"track_id": track(), "weight": -0.5},
        ]
        return json.dumps(
            {"terms": terms, "blend": chance.random(), "where": ["genres=jazz"]}
        ).encode()

    return {
        "search by words": (
            0.3,
            lambda: (f"/api/search?text={quote(chance.choice(TEXTS))}&blend=0.3", b""),
        ),
        "several terms, filtered": (0.15, lambda: ("/api/search", ask())),
        "similar": (0.2, lambda: (f"/api/tracks/{track()}/similar?per_artist=1", b"")),
        "recommend": (
            0.15,
            lambda: (f"/api/recommend/{USER_PREFIX}{chance.randrange(n_listeners):05d}", b""),
        ),
        "audience": (0.05, lambda: (f"/api/tracks/{track()}/audience", b"")),
        "a track": (0.1, lambda: (f"/api/tracks/{track()}", b"")),
        "the library": (0.05, lambda: ("/api/library", b"")),
    }


async def request(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, body: bytes
) -> tuple[int, bytes]:
    """One call over an open connection: status and body."""
    method = "POST" if body else "GET"
    lines = (f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json")
    writer.write("\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body)
    await writer.drain()
    status = int((await reader.readline()).split()[1])
    length = 0
    while (line := await reader.readline()) != b"\r\n":
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    return status, await reader.readexactly(length)


async def client(
    port: int, until: float, think_s: float, n_tracks: int, n_listeners: int, seed: int, seen: Seen
) -> None:
    """One client's calls until the time is up."""
    chance = random.Random(seed)
    kinds = calls(n_tracks, n_listeners, chance)
    weights = [share for share, _ in kinds.values()]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await asyncio.sleep(chance.random() * think_s)
    while time.monotonic() < until:
        kind = chance.choices(list(kinds), weights)[0]
        path, body = kinds[kind][1]()
        started = time.monotonic()
        try:
            status, _ = await asyncio.wait_for(request(reader, writer, path, body), TIMEOUT_S)
        except (OSError, EOFError, TimeoutError, ValueError, IndexError) as error:
            seen.errors[type(error).__name__] += 1
            writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            continue
        if status == 200:
            seen.seconds[kind].append(time.monotonic() - started)
        else:
            seen.errors[f"{kind}: {status}"] += 1
        if think_s:
            await asyncio.sleep(chance.expovariate(1 / think_s))
    writer.close()


async def crowd(
    port: int, pid: int, arguments: argparse.Namespace, think_s: float
) -> tuple[Seen, list[float]]:
    """All clients at once; what they saw, and the server's memory in MB, a reading a second."""
    seen, memory, process = Seen(), list[float](), psutil.Process(pid)
    until = time.monotonic() + arguments.seconds
    numbers = range(arguments.clients)
    tasks = [
        asyncio.create_task(
            client(port, until, think_s, arguments.tracks, arguments.listeners, number, seen)
        )
        for number in numbers
    ]
    while time.monotonic() < until:
        memory.append(process.memory_info().rss / 2**20)
        await asyncio.sleep(1)
    await asyncio.gather(*tasks)
    return seen, memory


async def alone(port: int) -> list[float]:
    """Seconds of single searches by words, one after the other, each a text not asked before half
    the time.
    """
    chance = random.Random(1)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    seconds = []
    for number in range(SINGLE):
        text = chance.choice(TEXTS) if number % 2 else f"{chance.choice(TEXTS)} number {number}"
        started = time.monotonic()
        status, _ = await request(
            reader, writer, f"/api/search?text={quote(text)}&blend={chance.random():.2f}", b""
        )
        assert status == 200, status
        seconds.append(time.monotonic() - started)
    writer.close()
    return seconds


def percentiles(seconds: list[float]) -> dict[str, float]:
    """p50, p95 and p99 in ms."""
    return {f"p{q}_ms": round(1000 * float(np.percentile(seconds, q)), 1) for q in (50, 95, 99)}


def report(seen: Seen, memory: list[float], seconds: float, title: str) -> dict[str, object]:
    """Prints the table of one crowd; gives it as data. Memory drift: from a fifth of the time on,
    to the end.
    """
    everything = [each for kind in seen.seconds.values() for each in kind]
    rows = {
        kind: {"n": len(each), **percentiles(each)} for kind, each in sorted(seen.seconds.items())
    }
    rows["all"] = {"n": len(everything), **percentiles(everything)}
    warm = memory[int(WARM_SHARE * len(memory))]
    drift = memory[-1] / warm - 1
    print(
        f"\n{title}: {len(everything) / seconds:,.0f} answers/s, "
        f"{sum(seen.errors.values())} errors {dict(seen.errors)}"
    )
    print("| call | n | p50 ms | p95 ms | p99 ms |\n|---|---|---|---|---|")
    for kind, row in rows.items():
        times = " | ".join(f"{row[name]:,.1f}" for name in ("p50_ms", "p95_ms", "p99_ms"))
        print(f"| {kind} | {row['n']:,.0f} | {times} |")
    print(
        f"memory {warm:,.0f} MB after {WARM_SHARE:.0%} of the time, "
        f"{memory[-1]:,.0f} MB at the end: {drift:+.1%}"
    )
    return {
        "rows": rows,
        "errors": dict(seen.errors),
        "memory_mb": [warm, memory[-1]],
        "drift": drift,
    }


def main() -> None:
    """Serves, asks, prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="keeps the made-up library")
    parser.add_argument("--tracks", type=int, default=50_000)
    parser.add_argument("--listeners", type=int, default=2_000)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument(
        "--think",
        type=float,
        nargs="*",
        default=[1.0, 0.0],
        help="s between a client's calls, on average",
    )
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    root = arguments.work / f"library-{arguments.tracks}"
    make_large_library(root, arguments.tracks, arguments.listeners)
    started = time.monotonic()
    with serving(root) as (url, pid):
        port, ready_s = urlsplit(url).port or 0, time.monotonic() - started
        print(
            f"{arguments.tracks:,} tracks, {arguments.listeners:,} listeners; "
            f"ready after {ready_s:.1f} s"
        )
        single = percentiles(asyncio.run(alone(port)))
        print(f"one client, {SINGLE} searches by words: {single}")
        result: dict[str, object] = {
            "tracks": arguments.tracks,
            "clients": arguments.clients,
            "alone": single,
        }
        for think_s in arguments.think:
            seen, memory = asyncio.run(crowd(port, pid, arguments, think_s))
            title = (
                f"{arguments.clients} clients, {arguments.seconds:g} s, "
                f"thinking {think_s:g} s between calls"
            )
            result[f"think {think_s:g} s"] = report(seen, memory, arguments.seconds, title)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
