"""Asks every operation of the OpenAPI with generated questions, in this process, and looks at each
answer.

    python tests/serve/fuzz_api.py LIBRARY --requests 10000

schemathesis makes the questions, half of them fitting the schema and half not; in some of them ids
that there are take the place of invented ones, so that what lies behind is reached. Each answer
must be one that the OpenAPI knows, of its media type and schema; each error {code, message} and
nothing else; none a 5xx but "busy" and "not ready", which there should be none of either.
"""

import argparse
import json
import random
import re
import sys
import time
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.python.asgi import get_client
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from ponticello.serve.app import create_app
from ponticello.serve.security import security_policy_for

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
KNOWN_SHARE = 0.9  # of ids that are replaced by one that there is
SENSIBLE_SHARE = 0.9  # of bodies in which one of what excludes each other is kept
HOST = {"Host": "localhost"}
A_ROUND = 25  # questions of an operation and a mode before the next has its turn
CODE = re.compile(r"[a-z]+(_[a-z]+)*")
WHERE = [
    "genres=rock",
    "duration_s<300",
    "title~a",
    "artist!=nobody",
    "tags=slow",
    "album!=x",
    "title>=b",
    "no=1",
]


@dataclass
class Tally:
    """How many answers there were of each operation and status, and what was wrong with some."""

    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    faults: dict[str, str] = field(default_factory=dict)  # what, and how to see it again

    @property
    def n_requests(self) -> int:
        """All of them."""
        return self.answers.total()

    def of_status(self, first: int) -> int:
        """Answers whose status begins with this digit."""
        return sum(n for (_, status), n in self.answers.items() if status // 100 == first)


@dataclass(frozen=True)
class Known:
    """What the library has: ids that lead somewhere, and a file that can be heard."""

    tracks: list[str]
    users: list[str]
    sound: bytes
    upload: str


def fuzz(app: FastAPI, n_requests: int, first_seed: int = 0, sound: bytes = b"") -> Tally:
    """At least `n_requests` answers of `app`, looked at. sound: a file it can hear, to get behind
    the uploads' door.
    """
    schema: Any = schemathesis.openapi.from_asgi("/openapi.json", app, headers=HOST)
    operations = [found.ok() for found in schema.get_all_operations()]
    known, tally = _known(app, sound), Tally()
    number = first_seed
    application: Any = app
    with get_client(application) as session:
        while tally.n_requests < n_requests:
            for operation in operations:
                for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                    number += 1
                    _round(operation, mode, number, known, tally, session)
                    if tally.n_requests >= n_requests:
                        return tally
    return tally


def _round(
    operation: Any, mode: GenerationMode, number: int, known: Known, tally: Tally, session: Any
) -> None:
    chance = random.Random(number)

    @seed(number)
    @settings(
        max_examples=A_ROUND,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        _make_known(case, known, chance)
        answer = case.call(session=session, headers=HOST)
        tally.answers[operation.label, answer.status_code] += 1
        fault = _fault(case, answer)
        if fault:
            tally.faults.setdefault(
                f"{operation.label} {answer.status_code}: {fault}", case.as_curl_command()
            )

    try:
        ask()
    except Exception as error:
        if type(error).__name__ not in (
            "Unsatisfiable",
            "SkipTest",
        ):  # nothing can be wrong about this operation
            raise


def _fault(case: Any, answer: Any) -> str:
    """What is wrong with an answer; empty if nothing is."""
    if answer.status_code >= 400 and case.method.upper() != "HEAD":
        try:
            body = json.loads(answer.content)
        except ValueError:
            return f"an error that is no JSON: {answer.content[:100]!r}"
        if set(body) != {"code", "message"} or not CODE.fullmatch(body["code"]):
            return f"an error of another shape: {body}"
        if (
            not body["message"]
            or len(body["message"].splitlines()) != 1
            or len(body["message"]) > 400
        ):
            return f"a message that is no line: {body['message']!r}"
    try:
        case.validate_response(answer, checks=CHECKS)
    except FailureGroup as failures:
        return "; ".join(str(failure).splitlines()[0] for failure in failures.exceptions)
    return ""


def _known(app: FastAPI, sound: bytes) -> Known:
    from starlette.testclient import TestClient

    client = TestClient(app, base_url="http://localhost")
    tracks = [
        each["track_id"] for each in client.get("/api/tracks", params={"k": 20}).json()["tracks"]
    ]
    listeners = client.get("/api/listeners", params={"k": 20}).json()["listeners"]
    heard = client.post("/api/uploads", files={"file": ("sound", sound)}) if sound else None
    upload = heard.json()["upload_id"] if heard is not None and heard.status_code == 200 else "none"
    return Known(tracks, [each["user_id"] for each in listeners], sound, upload)


def _make_known(case: Any, known: Known, chance: random.Random) -> None:
    """Puts ids that there are into some of the places that hold one."""
    for parameters in (case.path_parameters, case.query):
        if isinstance(parameters, dict):
            for name in parameters:
                if chance.random() < KNOWN_SHARE:
                    parameters[name] = _value(name, parameters[name], known, chance)
    if isinstance(case.body, dict):
        if (
            "file" in case.body and known.sound and chance.random() < KNOWN_SHARE / 4
        ):  # being heard takes a while
            case.body["file"] = known.sound
        case.body = _filled(case.body, known, chance)


def _value(name: str, value: Any, known: Known, chance: random.Random) -> Any:
    if name in ("track_id", "from", "to", "id", "startSongId", "endSongId"):
        return chance.choice(known.tracks)
    if name == "user_id" and known.users:
        return chance.choice(known.users)
    if name == "upload_id":
        return known.upload
    if name == "where" and isinstance(value, list):
        return [chance.choice(WHERE) for _ in value[:3]]
    if name in ("recent", "exclude", "track_ids") and isinstance(value, list):
        return [chance.choice(known.tracks) for _ in value] or value
    return value


def _filled(body: Any, known: Known, chance: random.Random) -> Any:
    """`body` with known values here and there, and mostly with one of what excludes each other."""
    if isinstance(body, list):
        return [_filled(each, known, chance) for each in body]
    if not isinstance(body, dict):
        return body
    found = {name: _filled(value, known, chance) for name, value in body.items()}
    for name, value in found.items():
        if value is not None and chance.random() < KNOWN_SHARE:
            found[name] = _value(name, value, known, chance)
    for alternatives in (
        ("text", "track_id", "upload_id"),
        ("user_id", "recent"),
        ("query", "user_id", "recent"),
    ):
        named = [name for name in alternatives if found.get(name) is not None]
        if len(named) > 1 and chance.random() < SENSIBLE_SHARE:
            kept = chance.choice(named)
            found = {
                name: value
                for name, value in found.items()
                if name == kept or name not in alternatives
            }
    if {"start_s", "end_s"} & set(found) and chance.random() < SENSIBLE_SHARE:
        part = {"start_s": 0.5, "end_s": 2.0} if found.get("track_id") else {}
        found = {
            name: value for name, value in found.items() if name not in ("start_s", "end_s")
        } | part
    return found


def main() -> None:
    """Prints the table, and fails if a single answer is wrong."""
    parser = argparse.ArgumentParser(
        description="Generated questions to every operation of the service."
    )
    parser.add_argument("library", type=Path)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sound", type=Path, help="a sound file for uploads")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", module="hypothesis")
    app = create_app(options.library, security_policy_for("127.0.0.1", None))
    started = time.monotonic()
    tally = fuzz(
        app, options.requests, options.seed, options.sound.read_bytes() if options.sound else b""
    )
    app.state.uploads.close()
    labels = sorted({label for label, _ in tally.answers})
    print(f"{'':<44} {'2xx':>6} {'3xx':>6} {'4xx':>6} {'5xx':>6}")
    for label in labels:
        of_label = [
            (status // 100, n) for (name, status), n in tally.answers.items() if name == label
        ]
        row = [sum(n for first, n in of_label if first == wanted) for wanted in (2, 3, 4, 5)]
        print(f"{label:<44} " + " ".join(f"{n:>6,}" for n in row))
    seconds = time.monotonic() - started
    print(
        f"{tally.n_requests:,} requests to {len(labels)} operations in {seconds:.0f} s: "
        f"{tally.of_status(2):,} answered, {tally.of_status(4):,} refused, "
        f"{tally.of_status(5):,} 5xx, "
        f"{len(tally.faults):,} kinds of fault"
    )
    for fault, command in tally.faults.items():
        print(f"\n{fault}\n    {command[:600]}")
    sys.exit(bool(tally.faults or tally.of_status(5)))


if __name__ == "__main__":
    main()
