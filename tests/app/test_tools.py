"""The tools of `serve --mcp`, asked by the official client."""

import asyncio
import base64
import io
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from PIL import Image

from jedi_diffusion.app.application import Access
from tests.helpers.fake_runners import picture_of
from tests.helpers.running_servers import Running

pytest.importorskip("mcp", reason="needs the extra mcp")
TOKEN = "a-token-that-is-long-enough"


def encoded(picture: Image.Image) -> str:
    data = io.BytesIO()
    picture.save(data, "PNG")
    return base64.b64encode(data.getvalue()).decode()


@pytest.fixture
def offered(serve: Callable[..., Running]) -> Callable[..., Running]:
    """Start a server with the tools."""
    from jedi_diffusion.app.tools import Tools

    def start(**settings: Any) -> Running:
        return serve(tools=lambda service: Tools(service).mount, **settings)

    return start


def asked(running: Running, ask: Callable[[Any], Awaitable[Any]], token: str = "") -> Any:
    """Return what a client's question gives."""
    import httpx2
    from mcp.client import Client
    from mcp.client.streamable_http import streamable_http_client

    async def talk() -> Any:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with httpx2.AsyncClient(headers=headers, timeout=30) as http:
            transport = streamable_http_client(f"{running.url}/mcp", http_client=http)
            async with Client(transport) as client:
                return await ask(client)

    return asyncio.run(talk())


def test_tools_are_listed_with_their_arguments(offered: Callable[..., Running]) -> None:
    found = asked(offered(), lambda client: client.list_tools()).tools
    assert [each.name for each in found] == ["generate_pictures", "list_models", "score"]
    schema = found[0].input_schema
    assert schema["required"] == ["prompt"]
    assert "ctx" not in schema["properties"]
    assert schema["properties"]["n"]["maximum"] == 16


def test_pictures_are_those_of_the_model(offered: Callable[..., Running]) -> None:
    running, photo = offered(), Image.new("RGB", (16, 16), "blue")
    words = {"prompt": "a robot", "references": [encoded(photo)], "n": 2, "seed": 5}
    done = asked(running, lambda client: client.call_tool("generate_pictures", words))
    assert not done.is_error
    *shown, said = done.content
    pictures = [Image.open(io.BytesIO(base64.b64decode(each.data))) for each in shown]
    assert [each.mime_type for each in shown] == ["image/png"] * 2
    assert [each.tobytes() for each in pictures] == [
        picture_of("a robot", seed, (photo,)).tobytes() for seed in (5, 6)
    ]
    assert json.loads(said.text) == {"model": "toybox", "seeds": [5, 6], "warnings": []}
    assert running.engine.unfinished == 0


def test_faults_are_said_to_the_client(offered: Callable[..., Running]) -> None:
    running = offered()
    for words, message in (
        ({"prompt": "fail"}, "The prompt is no good."),
        ({"prompt": "a robot", "size": "17x17"}, "size"),
        ({"prompt": "a robot", "references": ["no picture"]}, "Picture 1 is not base64."),
        ({"prompt": "a robot", "references": ["https://127.0.0.1/a.png"]}, "image must be a file"),
    ):
        done = asked(running, lambda client, words=words: client.call_tool("generate_pictures", words))
        assert done.is_error
        assert message in done.content[0].text
        assert "Traceback" not in done.content[0].text


def test_the_model_is_described(offered: Callable[..., Running]) -> None:
    done = asked(offered(), lambda client: client.call_tool("list_models", {}))
    (model,) = json.loads(done.content[0].text)
    assert (model["id"], model["size"], model["about"]) == ("toybox", 16, "It knows robots.")


def test_a_copy_has_the_highest_score(offered: Callable[..., Running]) -> None:
    from jedi_toybox import world

    specs = [world.sample_picture(world.sample_subject(seed, split="held_out"), seed) for seed in (2, 3)]
    drawn = world.render(specs).pictures.permute(0, 2, 3, 1).contiguous().numpy()
    pictures = [encoded(Image.fromarray(each)) for each in drawn]
    words = {"pictures": pictures, "references": pictures[:1]}
    done = asked(offered(), lambda client: client.call_tool("score", words))
    copy, other = json.loads(done.content[0].text)
    assert copy == {"identity": 1.0, "distance": 0.0, "is_copy": True, "prompt": None}
    assert other["identity"] < 0.9
    assert not other["is_copy"]


def test_tokens_hold_for_tools_too(offered: Callable[..., Running]) -> None:
    running = offered(access=Access((TOKEN,)))
    with running.client() as client:
        assert client.post("/mcp", json={}).status_code == 401
        assert client.post("/mcp", json={}, headers={"Origin": "https://example.org"}).status_code == 403
    done = asked(running, lambda client: client.call_tool("list_models", {}), TOKEN)
    assert not done.is_error


def test_without_the_flag_there_are_none(running: Running) -> None:
    with running.client() as client:
        assert client.post("/mcp", json={}).status_code == 404
