"""Uploads over a real connection: what a hostile client at the other end gets, and that the service
goes on.
"""

import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from fastapi import FastAPI

from ponticello.serve.routes.uploads import ReceivingLimits
from tests.serve.served import make_app, running

HEAD = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x.mp3"\r\n\r\n'
START = (
    b"POST /api/uploads HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    b"Content-Type: multipart/form-data; boundary=b\r\n"
)
LIMITS = ReceivingLimits(n_bytes=1 << 20, receive_s=5.0, idle_s=0.2)


@pytest.fixture(scope="module")
def app(trained_root: Path) -> FastAPI:
    app = make_app(trained_root)
    app.state.uploads.limits = LIMITS
    return app


@pytest.fixture(scope="module")
def address(app: FastAPI) -> Iterator[str]:
    with running(app) as address:
        yield address


@pytest.fixture(autouse=True)
def _stays_well(app: FastAPI, address: str) -> Iterator[None]:
    """After each test nothing is left in the folder, and the service answers."""
    yield
    assert list(app.state.uploads.folder.iterdir()) == []
    with urllib.request.urlopen(f"{address}/healthz", timeout=30) as answer:
        assert answer.status == 200


@contextmanager
def _connected(address: str) -> Iterator[socket.socket]:
    found = urlsplit(address)
    with socket.create_connection((found.hostname, found.port), timeout=30) as connection:
        yield connection


def _answer(connection: socket.socket) -> tuple[int, bytes]:
    """(status, body) of the answer."""
    with connection.makefile("rb") as file:
        status = int(file.readline().split()[1])
        length = 0
        while line := file.readline().strip():
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        return status, file.read(length)


def _chunk(piece: bytes) -> bytes:
    return f"{len(piece):x}\r\n".encode() + piece + b"\r\n"


def test_a_declared_excess_is_answered_before_it_is_sent(address: str) -> None:
    with _connected(address) as connection:
        connection.sendall(START + b"Content-Length: 999999999999\r\n\r\n")
        status, body = _answer(connection)
    assert status == 413
    assert b'"too_large"' in body


def test_chunks_without_end_are_given_up(address: str) -> None:
    """A client that only sends: once its limit is passed it is answered, whatever it goes on to
    send.
    """
    with _connected(address) as connection:
        connection.sendall(START + b"Transfer-Encoding: chunked\r\n\r\n" + _chunk(HEAD))
        for _ in range(40):
            connection.sendall(_chunk(b"x" * 65_536))
        status, body = _answer(connection)
    assert status == 413
    assert b'"too_large"' in body


def test_ten_thousand_parts_are_given_up(address: str) -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="f"\r\n\r\nx\r\n'
    body = part * 10_001 + b"--b--\r\n"
    with _connected(address) as connection:
        connection.sendall(START + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        status, told = _answer(connection)
    assert status == 422
    assert b'"invalid"' in told


def test_a_client_that_falls_silent_is_told_and_let_go(address: str) -> None:
    with _connected(address) as connection:
        connection.sendall(START + b"Content-Length: 100000\r\n\r\n" + HEAD + b"only this")
        status, body = _answer(connection)
        assert status == 408
        assert b'"timeout"' in body
        assert connection.recv(1) == b"", "the connection is closed"


def test_a_client_that_goes_away_leaves_nothing(app: FastAPI, address: str) -> None:
    with _connected(address) as connection:
        connection.sendall(START + b"Content-Length: 100000\r\n\r\n" + HEAD + b"half of i")
    with _connected(
        address
    ) as connection:  # answered after the other has been noticed, or beside it
        connection.sendall(START + b"Content-Length: 5\r\n\r\nwrong")
        assert _answer(connection)[0] == 422
    for _ in range(500):
        if app.state.uploads.n_under_way == 0:
            break
        urllib.request.urlopen(f"{address}/healthz", timeout=30).close()
    assert app.state.uploads.n_under_way == 0
