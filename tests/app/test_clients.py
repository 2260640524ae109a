"""Who counts as one client: with IPv6 anybody has more addresses than a limit could ever count."""

import asyncio

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from jedi_diffusion.app.clients import client_of, is_here
from jedi_diffusion.app.gate import Gate
from jedi_diffusion.app.room import Room
from jedi_diffusion.app.uploads import NoRoomError


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::FFFF:c000:0207", "192.0.2.7"),
        ("2001:db8:0:1::7", "2001:db8:0:1::/64"),
        ("2001:DB8:0:1:ffff:ffff:ffff:ffff", "2001:db8:0:1::/64"),
        ("2001:db8:0:2::7", "2001:db8:0:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::1"),
        ("127.0.0.1", "127.0.0.1"),
        ("", ""),
        ("_hidden", "_hidden"),
    ],
)
def test_an_address_stands_for_its_network(address, client) -> None:
    assert client_of(address) == client


def test_addresses_of_this_machine() -> None:
    own = ("127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", "")
    others = ("192.0.2.7", "::ffff:192.0.2.7", "2001:db8::1", "::2")
    assert [is_here(each) for each in (*own, *others)] == [True] * len(own) + [False] * len(others)


def test_uploads_of_one_network_share_a_clients_room() -> None:
    """While a body of 40 bytes is held, another of 20 is more than half of 100 together with it."""
    room, clients = Room(100), []

    async def application(scope, receive, send) -> None:
        request = Request(scope, receive)
        try:
            await request.body()
        except NoRoomError:
            await PlainTextResponse("", 503)(scope, receive, send)
            return
        clients.append(scope["state"]["client"])
        if scope["path"] == "/held":
            for address in ("2001:db8:0:1:8000::2", "::ffff:192.0.2.1", "2001:db8:0:2::1"):
                statuses.append(await post("/", address, 20))
        await PlainTextResponse("")(scope, receive, send)

    gate = Gate(application, room=room)
    statuses: list[int] = []

    async def post(path: str, address: str, size: int) -> int:
        transport = httpx.ASGITransport(gate, client=(address, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            return (await client.post(path, content=bytes(size))).status_code

    assert asyncio.run(post("/held", "2001:db8:0:1::1", 40)) == 200
    assert statuses == [503, 200, 200]
    assert clients == ["2001:db8:0:1::/64", "192.0.2.1", "2001:db8:0:2::/64"]
    assert room.held == 0


def test_jobs_are_found_from_every_address_of_a_network(running) -> None:
    """A phone changes its address within the network from hour to hour. The proxy on this machine says whose
    request it is."""

    def at(address: str) -> dict[str, str]:
        return {"X-Forwarded-For": address}

    with running.client() as client:
        body = {"prompt": "a robot", "steps": "2"}
        job = client.post("/v1/jobs", data=body, headers=at("2001:db8:0:1::1")).json()["id"]
        found = [
            client.get(f"/v1/jobs/{job}", headers=at(address)).status_code
            for address in ("2001:db8:0:1::1", "2001:db8:0:1:9::9", "2001:db8:0:2::1", "192.0.2.1")
        ]
    assert found == [200, 200, 404, 404]
