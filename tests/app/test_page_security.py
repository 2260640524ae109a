"""Attacks on the page: files of the server's user, stored script, and what gradio's advisories tell of."""

import io
import itertools
import json
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from PIL import Image

from jedi_diffusion.app.application import Access
from jedi_diffusion.app.received import Received
from jedi_diffusion.app.uploads import MAX_PHOTO
from tests.helpers.waiting import until_seen

# Gradio leaves event loops open while it builds its components, and calls pandas as it was.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
TOKEN = "t" * 16
JOIN = "/gradio_api/queue/join"


def png(color: str = "red") -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (32, 32), color).save(data, format="PNG")
    return data.getvalue()


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A picture that only the server's user may read."""
    path = tmp_path / "secret.png"
    path.write_bytes(png("teal"))
    path.chmod(0o600)
    return path


def upload(client: httpx.Client, data: bytes, name: str = "a.png") -> str:
    (handle,) = client.post("/gradio_api/upload", files={"files": (name, data)}).json()
    return handle


def named(path: object, **more: object) -> dict:
    """A file as gradio's requests name it."""
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}, **more}


def endpoints(client: httpx.Client) -> dict[int, tuple[str, int]]:
    """What the page's requests may call: by number, which event it is and how many inputs it has."""
    rows = client.get("/config").json()["dependencies"]
    return {row["id"]: (row["targets"][0][1], len(row["inputs"])) for row in rows}


def call(client: httpx.Client, number: int, data: list, session: str = "x") -> dict:
    """The last message of a call: `process_completed`, with its output."""
    body = {"data": data, "fn_index": number, "session_hash": session, "trigger_id": None}
    body |= {"event_data": {"index": 0}}
    joined = client.post(JOIN, json=body)
    assert joined.status_code == 200, joined.text
    with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as stream:
        lines = [json.loads(line[5:]) for line in stream.iter_lines() if line.startswith("data:")]
    return next(line for line in lines if line["msg"] == "process_completed")


def pictures_in(message: dict) -> list[str]:
    """Addresses of pictures in an answer."""
    return re.findall(r'"path": "([^"]+\.(?:webp|png))"', json.dumps(message["output"]))


def number_of(client: httpx.Client, event: str) -> int:
    return next(number for number, (name, _) in endpoints(client).items() if name == event)


def test_row_11_no_endpoint_of_the_page_takes_a_file_that_was_not_uploaded(served, secret) -> None:
    """CVE-2024-0964, 2024-1728, 2024-4941, 2024-47868 and 2024-51751 (files by way of a request's values),
    and CVE-2024-47167 (addresses by the same way)."""
    running = served(access=Access(tokens=(TOKEN,)))
    forms = (
        named(secret),
        named(secret, is_stream=True),
        [named(secret, url=str(secret))],
        {"path": str(secret)},
        named(f"file://{secret}"),
        named("http://127.0.0.1:1/a.png"),
    )
    with running.client() as stranger, running.client(headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        found = endpoints(client)
        assert len(found) >= 12
        for number, (event, inputs) in found.items():
            assert stranger.post(JOIN, json={"data": [], "fn_index": number}).status_code == 401
            for form in forms:
                message = call(client, number, [form] * inputs)
                assert message["success"] is False, (event, form)
                assert "must be uploaded" in message["output"]["error"]
    shown = [each.read_bytes() for each in running.page.folder.rglob("*.*") if each.suffix == ".png"]
    assert secret.read_bytes() not in shown
    assert running.runner.calls == []


@pytest.mark.parametrize("form", [{}, {"is_stream": True}, {"url": "http://127.0.0.1:1/a.png"}])
def test_row_11_gradios_own_check_is_on_behind_ours(form, served, secret, monkeypatch) -> None:
    monkeypatch.setattr(Received, "check", lambda *_: None)
    with served().client() as client:
        number = number_of(client, "upload")
        assert call(client, number, [[named(secret, **form)], None])["success"] is False
        svg = secret.with_suffix(".svg")
        svg.write_text("<svg/>")
        assert call(client, number, [[named(svg)], None])["success"] is False
        assert client.get(f"/gradio_api/file={svg}").status_code == 404


def test_row_11_a_session_reads_only_what_it_was_handed(served, secret, monkeypatch) -> None:
    """Even with both checks of requests gone."""
    running = served()
    monkeypatch.setattr(Received, "check", lambda *_: None)
    running.page.blocks.has_launched = False
    with running.client() as client:
        message = call(client, number_of(client, "upload"), [[named(secret, is_stream=True)], None])
        assert pictures_in(message) == []
        message = call(client, number_of(client, "upload"), [[named(upload(client, png()))], None])
        assert len(pictures_in(message)) == 1


def test_settings_come_from_an_upload_which_is_then_gone(served) -> None:
    """Texts of the file are shown as text, and nothing that it names is read."""
    row = {
        "options": {"steps": 7, "<b>": 1},
        "model": {"name": "<i>", "fingerprint": "", "scheduler": ""},
        "references": [{"path": "/etc/passwd"}],
        "prompt": "a robot",
        "seed": 5,
    }
    with served().client() as client:
        number = [key for key, (name, _) in endpoints(client).items() if name == "upload"][1]
        handle = upload(client, json.dumps(row).encode(), "settings.json")
        output = call(client, number, [named(handle)])["output"]["data"]
        assert {"a robot", 5, 7} <= {each for each in output if isinstance(each, (str, int))}
        assert "The settings of settings.json are taken." in output[1]
        assert "&lt;b&gt;" in output[1]
        assert "&lt;i&gt;" in output[1]
        assert not Path(handle).parent.exists()
        handle = upload(client, b"nothing", "<b>.json")
        output = call(client, number, [named(handle)], "y")["output"]["data"]
        assert output[1].startswith('<div role="alert">&lt;b&gt;.json is neither')
        assert not Path(handle).parent.exists()
        assert pictures_in({"output": output}) == []


def test_an_upload_is_read_once_and_then_gone(served) -> None:
    running = served()
    with running.client() as client:
        first, second = (upload(client, png()) for _ in range(2))
        assert Path(first).parent != Path(second).parent  # nothing about a handle follows from the photo
        assert stat.S_IMODE(Path(first).parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(running.page.folder.stat().st_mode) == 0o700
        number = number_of(client, "upload")
        (crop,) = pictures_in(call(client, number, [[named(first)], None]))
        assert Image.open(io.BytesIO(client.get(f"/gradio_api/file={crop}").content)).size == (16, 16)
        assert not Path(first).parent.exists()
        assert call(client, number, [[named(first)], None], "y")["success"] is False
        assert Path(second).exists()


def test_uploads_are_never_served(served) -> None:
    """CVE-2024-47872: an upload that a browser would run."""
    uploads = {
        "a.html": b"<script>alert(1)</script>",
        "a.svg": b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>',
        "a.js": b"alert(1)",
        "a.pdf": b"%PDF-1.4",
        "a.png": png(),
    }
    with served().client() as client:
        for name, data in uploads.items():
            handle = upload(client, data, name)
            assert Path(handle).read_bytes() == data
            for address in (handle, handle.replace("/received/", "/./received/"), f"{handle}?x=.png"):
                assert client.get(f"/gradio_api/file={address}").status_code == 404


def test_files_that_are_served_run_nothing(served) -> None:
    running = served()
    with running.client() as client:
        handle = upload(client, png())
        (crop,) = pictures_in(call(client, number_of(client, "upload"), [[named(handle)], None]))
        answer = client.get(f"/gradio_api/file={crop}")
        assert answer.headers["content-type"].startswith("image/")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in answer.headers["content-security-policy"]
        assert "script" not in answer.headers["content-security-policy"]
        for suffix in (".html", ".svg", ".zip"):  # whatever found its way into the folder
            stored = Path(crop).with_name(f"x{suffix}")
            stored.write_bytes(b"<script>alert(1)</script>")
            answer = client.get(f"/gradio_api/file={stored}")
            assert answer.status_code == (200 if suffix == ".zip" else 404)
        assert answer.headers["content-disposition"].startswith("attachment")
        assert "sandbox" in answer.headers["content-security-policy"]


def test_the_pages_policy_names_its_scripts(served) -> None:
    with served().client() as client:
        page = client.get("/?deep_link=../../x")
        policy = dict(
            each.strip().split(" ", 1) for each in page.headers["content-security-policy"].split(";")
        )
        assert policy["default-src"] == "'none'"
        assert "unsafe" not in policy["script-src"]
        scripts = re.findall(r"<script(?![^>]*src=)", page.text)
        assert policy["script-src"].count("sha256-") == len(scripts) > 0
        for path in ("/docs", "/v1/models", "/nowhere"):
            assert "script-src" not in client.get(path).headers["content-security-policy"]
            assert "default-src 'none'" in client.get(path).headers["content-security-policy"]


# Gradio's published advisories, by what they let a visitor do


def test_row_11_paths_in_gradios_addresses_lead_nowhere(served, secret) -> None:
    """CVE-2021-43831, 2023-34239, 2023-51449, 2024-12217 (streams of NTFS), 2024-47164, 2024-47166,
    2025-23042 (letter case) and 2026-28414 (Windows): files by way of an address."""
    running = served()
    folder = running.page.folder
    up = "/".join([".."] * 12)
    paths = [secret, "/etc/passwd", f"{up}/etc/passwd", f"{folder}/{up}/etc/passwd", f"{folder}/in-use.lock"]
    paths += [
        f"{folder}/shown/../in-use.lock",
        f"{folder}/shown/{'a' * 64}/../../in-use.lock",
        "C:/x.png::$DATA",
    ]
    places = ["gradio_api/file=", "gradio_api/file/", "file=", "static/", "assets/", "svelte/"]
    places += [
        "gradio_api/custom_component/x/client/component/",
        "gradio_api/stream/x/y/1/",
        "GRADIO_API/FILE=",
    ]
    with running.client() as client:
        for place in places:
            for path in (*paths, *(str(each).replace("/", "%2f") for each in paths)):
                answer = client.get(f"/{place}{path}")
                assert answer.status_code in (403, 404), (place, path)
                assert secret.read_bytes() not in answer.content
                assert b"root:" not in answer.content


def test_row_12_gradio_fetches_nothing_and_sends_nobody_away(served) -> None:
    """CVE-2023-34239, 2024-1183, 2024-2206, 2024-4325, 2024-48052, 2026-28416 and 2026-48545 (requests to
    other servers); CVE-2024-4940, 2024-8021 (its characters escaped), 2026-59806 and gradio's issue 13608
    (redirects)."""
    addresses = ("http://example.org/a.png", "HTTPS://example.org/a.png", "//example.org/a.png")
    escaped = [quote(each, safe="") for each in addresses]
    names = [f"file{mark}{each}" for each in (*addresses, *escaped) for mark in "=/"]
    names += ["proxy=https://example.hf.space/", "proxy=http://169.254.169.254/"]
    with served().client() as client:
        for name in names:
            for answer in (client.get(f"/gradio_api/{name}"), client.post(f"/gradio_api/{name}")):
                assert answer.json()["error"]["message"] == "There is nothing here."


UNUSED = [
    "gradio_api/component_server",  # CVE-2024-1561 and 2024-34511: any method of any component
    "monitoring",  # CVE-2024-47168: statistics, also where they are off
    "monitoring/summary",
    "monitoring/x",  # CVE-2024-47869: comparing its key takes a time that tells
    "login",  # CVE-2024-1729: comparing a password takes a time that tells
    "login/huggingface",  # CVE-2026-27167: the server's own token
    "login/callback?_target_url=//example.org",  # CVE-2026-28415: a redirect to another site
    "logout?_target_url=//example.org",
    "token",
    "gradio_api/token",
    "gradio_api/deep_link",
    "gradio_api/process_recording",
    "gradio_api/vibe-code/",
    "gradio_api/vibe-edit/",
    "gradio_api/dev/reload",
    "gradio_api/info",
    "gradio_api/openapi.json",
    "gradio_api/queue/status",
    "gradio_api/call/x",
    "gradio_api/run/x",
    "gradio_api/api/x",
    "gradio_api/mcp/",
    "gradio_api/runs",
    "gradio_api/run-history/buckets",  # CVE-2026-134825: the operator's token, by "Host: localhost"
    "gradio_api/run-history/records",
    "gradio_api/run-history/connect",
    "gradio_api/profiling/traces",
    "gradio_api/stream/x",
]


def test_what_the_page_does_not_use_is_not_there(served) -> None:
    with served().client() as client:
        for name, host, method in itertools.product(UNUSED, ({}, {"Host": "localhost"}), ("GET", "POST")):
            answer = client.request(method, f"/{name}", headers=host)
            assert answer.json()["error"]["code"] in ("not_found", "method_not_allowed"), name


def test_pages_of_other_origins_get_nothing(served) -> None:
    """CVE-2024-1727, 2024-47084, 2024-47165 ("null") and 2025-5320 (localhost for everybody)."""
    origins = ("https://evil.example", "null", "http://localhost:1", "http://127.0.0.1:1", "http://0.0.0.0")
    running = served()
    with running.client() as client:
        for origin in origins:
            headers = {"Origin": origin}
            asks = headers | {"Access-Control-Request-Method": "POST"}
            for answer in (
                client.get("/config", headers=headers),
                client.post("/gradio_api/upload", files={"files": ("a.png", png())}, headers=headers),
                client.post(JOIN, json={}, headers=headers),
                client.options(JOIN, headers=asks),
            ):
                assert answer.status_code == 403
                assert "access-control-allow-origin" not in answer.headers
        assert client.get("/config", headers={"Origin": running.url}).status_code == 200


def test_where_the_page_sends_its_requests_is_no_clients_choice(served) -> None:
    """CVE-2024-47870: one client's headers named the server for everybody."""
    running = served()
    headers = {"X-Forwarded-Host": "evil.example", "Forwarded": "host=evil.example"}
    asked = [(path, sent) for path in ("/", "/config") for sent in (headers, {})] * 10
    with running.client() as client, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda each: client.get(each[0], headers=each[1]), asked))
    for (path, sent), answer in zip(asked, answers, strict=True):
        assert answer.status_code == 200
        assert sent or "evil.example" not in answer.text, path


def test_uploads_that_are_no_uploads(served) -> None:
    """CVE-2024-8966 (boundaries without end) and 2025-0187 (names without end); names that are paths."""
    with served().client() as client:
        for boundary in ("x" * 4000, "x" + "-" * 4000):
            kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
            body = b"--" + boundary.encode() + b"-" * 2**20
            assert client.post("/gradio_api/upload", content=body, headers=kind).status_code in (200, 400)
        assert client.post("/gradio_api/upload", content=b"x").json() == []
        large = client.post("/gradio_api/upload", files={"files": ("big.png", bytes(MAX_PHOTO + 1))})
        assert (large.status_code, "big.png has" in large.text) == (413, True)
        many = [("files", (f"{number}.png", b"x")) for number in range(40)]
        assert client.post("/gradio_api/upload", files=many).status_code == 400
        assert client.post("/gradio_api/upload", files={"files": ("x" * 2**20, png())}).status_code == 400
        for name in ("../../../escape.png", "/etc/escape.png", "..\\escape.png", ".."):
            handle = Path(upload(client, png(), name))
            assert handle.parent.parent.name == "received"
            assert handle.name in ("escape.png", "image 1")


def test_each_advisory_that_the_docs_name_is_named_by_a_test_here_and_none_else() -> None:
    def numbers(text: str) -> set[str]:
        return set(re.findall(r"\b20\d\d-\d{4,6}\b", text))

    docs = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
    table = docs.partition("advisories of gradio |")[2].partition("\n\n")[0]
    assert numbers(table) == numbers(Path(__file__).read_text())


def test_the_check_looks_into_everything(tmp_path) -> None:
    received = Received(tmp_path / "received")
    handle = received.add(io.BytesIO(b"x"), 1, "a.png", "me")
    received.check([None, 1, "text", [named(handle)]])
    for value in ({}, [[{"path": None}]], named(handle + "/."), named(handle, is_stream=True), [named("x")]):
        with pytest.raises(Exception, match="must be uploaded"):
            received.check(value)


def test_the_page_opens_in_a_browser_with_a_token(browser, served, tmp_path) -> None:
    """It finds a challenge that it knows, asks for a password, and sends it with all that follows."""
    running = served(access=Access(tokens=(TOKEN,)))
    photo = tmp_path / "robot.png"
    photo.write_bytes(png())
    for password, status in (("wrong", 401), (TOKEN, 200)):
        context = browser.new_context(http_credentials={"username": "anyone", "password": password})
        tab = context.new_page()
        assert tab.goto(running.url).status == status
        if status == 200:
            tab.wait_for_selector("#generate")
            tab.set_input_files("#photos input[type=file]", str(photo))
            tab.wait_for_selector("#crops .thumbnail-item:has-text('robot.png')")
            tab.fill("#prompts textarea", "a robot")
            tab.click("#generate")
            tab.wait_for_selector("#status:has-text('Done in')")
            tab.wait_for_selector("#made .thumbnail-item")
            # Pictures are fetched with the password too.
            until_seen(tab, "document.querySelector('#made img')?.naturalWidth === 16")
        context.close()
    assert len(running.runner.calls) == 1
