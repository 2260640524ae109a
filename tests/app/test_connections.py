"""Connections that are opened and not used, drip, or do not read: each ends, and others get in."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from jedi_diffusion.app.connections import Connections, Limits
from jedi_diffusion.app.engine import Engine
from jedi_diffusion.app.server import Server, open_socket
from tests.helpers.fake_runners import FakeRunner
from tests.helpers.waiting import until

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"
BIG = 64 * 2**20
RELEASED = threading.Event()


async def application(scope: dict, receive: Callable, send: Callable) -> None:
    """Reads the body; /slow takes its time then, /held until RELEASED is set, /big has a large answer."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    while (message := await receive()).get("more_body"):
        pass
    if message["type"] == "http.disconnect":
        return
    if scope["path"] == "/slow":
        await asyncio.sleep(0.6)
    while scope["path"] == "/held" and not RELEASED.is_set():
        await asyncio.sleep(0.01)
    size = BIG if scope["path"] == "/big" else 2
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]})
    await send({"type": "http.response.body", "body": b"x" * size})


@pytest.fixture
def start() -> Iterator[Callable[..., tuple[int, Connections]]]:
    """Starts a server with these limits; its port, and its connections."""
    made: list[tuple[Server, threading.Thread]] = []

    def begin(**limits: float) -> tuple[int, Connections]:
        server = Server(application, Engine([FakeRunner()]), 0.1, Limits(**limits))
        listening = open_socket("127.0.0.1", 0)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        made.append((server, thread))
        return listening.getsockname()[1], server.open_connections

    yield begin
    for server, thread in made:
        server.should_exit = True
        thread.join(20)


@contextlib.contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        yield connection


def answered(connection: socket.socket) -> bool:
    """Whether the next answer is a good one; all of it is read."""
    data = b""
    while not data.endswith(b"\r\n\r\nxx"):
        part = connection.recv(4096)
        data += part
        if not part:
            return False
    return data.startswith(b"HTTP/1.1 200")


def is_cut_off(connection: socket.socket, data: bytes = b"") -> bool:
    """Whether the server ends a connection on which data comes a byte at a time, or none at all."""
    connection.settimeout(0.05)
    try:
        for byte in data:
            with contextlib.suppress(TimeoutError):
                return connection.recv(4096).startswith(b"HTTP/1.1 408")
            connection.sendall(bytes([byte]))
        connection.settimeout(10)
        return connection.recv(4096).startswith(b"HTTP/1.1 408")
    except ConnectionError:
        return True  # between a look and a byte


def test_a_head_has_to_come_in_time(start) -> None:
    port, _ = start(head_seconds=0.3)
    with connected(port) as silent, connected(port) as slow, connected(port) as later:
        later.sendall(GET)
        assert answered(later)
        assert is_cut_off(slow, GET)
        assert is_cut_off(silent)
        assert is_cut_off(later, GET)  # in the second request of a connection


def test_a_body_has_to_go_on_and_to_end(start) -> None:
    port, _ = start(head_seconds=0.3)
    with connected(port) as stopped:
        stopped.sendall(POST + b"x" * 50)
        assert is_cut_off(stopped)
    port, _ = start(body_seconds=0.5)
    with connected(port) as dripping, connected(port) as whole:
        dripping.sendall(POST)
        assert is_cut_off(dripping, b"x" * 100)
        whole.sendall(POST + b"x" * 100)
        assert answered(whole)


def test_an_application_may_take_its_time(start) -> None:
    port, _ = start(head_seconds=0.3, body_seconds=0.3, write_seconds=0.3)
    with connected(port) as connection:
        connection.sendall(GET.replace(b"/ ", b"/slow ", 1))
        assert answered(connection)


def test_an_answer_has_to_be_taken(start) -> None:
    port, connections = start(write_seconds=0.3)
    with connected(port) as connection:
        connection.sendall(GET.replace(b"/ ", b"/big ", 1))
        until(lambda: len(connections) == 1)
        until(lambda: len(connections) == 0)
        with contextlib.suppress(ConnectionResetError):
            assert len(b"".join(iter(lambda: connection.recv(2**20), b""))) < BIG
    with connected(port) as connection:
        connection.sendall(GET.replace(b"/ ", b"/big ", 1))
        total = 0
        while total < BIG:  # slowly, but on and on
            total += len(connection.recv(2**22))
            time.sleep(0.01)


def test_connections_in_sum(start) -> None:
    """Those that say nothing give way; those with work in hand stay, and nobody else gets in."""
    RELEASED.clear()
    port, connections = start(total=3)
    with contextlib.ExitStack() as stack:
        half, *busy = [stack.enter_context(connected(port)) for _ in range(3)]
        half.sendall(GET[:10])
        for each in busy:
            each.sendall(GET.replace(b"/ ", b"/held ", 1))
        until(lambda: (len(connections), connections.waiting) == (3, 1))
        last = stack.enter_context(connected(port))
        last.sendall(GET.replace(b"/ ", b"/held ", 1))
        assert half.recv(4096).startswith(b"HTTP/1.1 503")
        until(lambda: (len(connections), connections.waiting) == (3, 0))
        refused = stack.enter_context(connected(port)).recv(4096)
        assert (refused[:12], b"retry-after" in refused) == (b"HTTP/1.1 503", True)
        RELEASED.set()
        for each in (*busy, last):
            assert answered(each)
        another = stack.enter_context(connected(port))
        another.sendall(GET)
        assert answered(another)


class Named:
    """A connection as `Connections` knows it."""

    def __init__(self, connections: Connections) -> None:
        self.connections = connections

    def give_way(self) -> None:
        self.connections.leave(self)


def test_connections_of_one_client() -> None:
    connections = Connections(Limits(total=6, per_client=2))

    first: list[Named] = []

    def enter(peer: str) -> bool:
        first.append(Named(connections))
        return connections.enter(first[-1], peer)

    assert [enter("192.0.2.1") for _ in range(3)] == [True, True, False]
    assert enter("192.0.2.2")
    assert [enter(each) for each in ("127.0.0.1", "127.0.0.1", "::1")] == [True] * 3
    assert not enter("192.0.2.3")  # six are open
    idle = Named(connections)
    connections.leave(first[0])
    assert connections.enter(idle, "192.0.2.1")
    connections.wait(idle)
    assert enter("192.0.2.1")  # in the place of its own idle one
    assert len(connections) == 6
    assert not enter("192.0.2.2")


def test_connections_of_one_network_are_one_clients() -> None:
    """An IPv6 client takes any address of its /64; on a socket of both families IPv4 comes as IPv6."""
    connections = Connections(Limits(total=20, per_client=2))

    def enter(peer: str) -> bool:
        return connections.enter(Named(connections), peer)

    assert [enter(f"2001:db8:0:1:{part:x}::1") for part in (0, 1, 0xFFFF)] == [True, True, False]
    assert enter("2001:db8:0:2::1")
    assert [enter(each) for each in ("192.0.2.1", "::ffff:192.0.2.1", "::ffff:192.0.2.1")] == [
        True,
        True,
        False,
    ]
    assert [enter("::ffff:127.0.0.1") for _ in range(3)] == [True] * 3
    assert len(connections) == 8
