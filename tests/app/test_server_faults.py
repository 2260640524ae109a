"""Faults and bad input against a running server: rows 5 to 14 and 16 of the list.

Row 15, with a real pipeline, is in test_app_runner.py.
"""

import base64
import contextlib
import io
import json
import os
import socket
import socketserver
import struct
import threading
import time
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import numpy as np
import psutil
import pytest
from PIL import Image, PngImagePlugin

from jedi_diffusion.app.fetch import Fetcher, is_public
from jedi_diffusion.app.results import made_with
from jedi_diffusion.app.uploads import MAX_BODY, MAX_JSON, PhotoReader
from jedi_diffusion.pictures import SOFTWARE_KEY
from tests.helpers.fake_runners import CARD, SIDE, FakeRunner
from tests.helpers.waiting import until


def encoded(picture: Image.Image, kind: str = "PNG", **settings: object) -> bytes:
    data = io.BytesIO()
    picture.save(data, format=kind, **settings)
    return data.getvalue()


def noise(width: int = SIDE, height: int = SIDE) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def edit(client: httpx.Client, *photos: bytes | tuple, **fields: object) -> httpx.Response:
    files = [("image[]", photo if isinstance(photo, tuple) else ("a.png", photo)) for photo in photos]
    form = {"prompt": "a robot", "seed": "0", "steps": "2"} | {key: str(each) for key, each in fields.items()}
    return client.post("/v1/images/edits", data=form, files=files)


def message(answer: httpx.Response, status: int = 400) -> str:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert len(error["message"]) < 500
    return error["message"]


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def huge_png(side: int = 50_000) -> bytes:
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(10_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def megabytes() -> float:
    return psutil.Process().memory_info().rss / 2**20


# Rows 5 to 8: pictures


def test_row_5_a_huge_picture_is_refused_before_it_is_decoded(running) -> None:
    with running.client() as client:
        edit(client, encoded(noise()))
        before = megabytes()
        assert "megapixels" in message(edit(client, huge_png()))
        assert megabytes() - before < 50
    assert len(running.runner.calls) == 1


def test_row_6_other_formats_and_text_bombs(running) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "a" * 5_000_000, zip=True)
    with running.client() as client:
        for data in (
            encoded(noise(), "PPM"),
            encoded(noise(), "ICO"),
            b"<svg/>",
            b"%PDF-1.4",
            b"8BPS" + bytes(40),
        ):
            assert "a.png" in message(edit(client, data))
        assert "a.png" in message(edit(client, encoded(noise(), pnginfo=text)))
    assert running.runner.calls == []


def test_row_7_broken_files_are_named(running) -> None:
    whole = encoded(noise(100, 100))
    with running.client() as client:
        for name, data in {"half.png": whole[:-200], "empty.png": b"", "letter.jpg": b"Dear user"}.items():
            assert name in message(edit(client, whole, (name, data)))
        assert "image 1" in message(edit(client, ("..", b"x")))
    assert running.runner.calls == []


def test_row_8_every_form_of_a_picture_is_the_same_reference(running) -> None:
    few = noise().quantize(64).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    forms = {
        "plain": encoded(few),
        "palette": encoded(few.quantize(64)),
        "alpha": encoded(few.convert("RGBA")),
        "webp": encoded(few, "WEBP", lossless=True),
        "rotated": encoded(few.transpose(Image.Transpose.ROTATE_90), exif=exif),
        "animated": encoded(few, save_all=True, append_images=[Image.new("RGB", few.size, "red")]),
    }
    with running.client() as client:
        answers = [edit(client, data).json()["data"][0]["b64_json"] for data in forms.values()]
        assert len(set(answers)) == 1
        gray = Image.fromarray(np.linspace(0, 65535, 256).reshape(16, 16).astype(np.uint16))
        for data in (encoded(few.convert("CMYK"), "JPEG"), encoded(gray)):
            assert edit(client, data).status_code == 200


# Rows 9 to 12: counts, texts, numbers, paths, addresses


def test_row_9_counts(running) -> None:
    photo = encoded(noise())
    with running.client() as client:
        assert "40 references" in message(edit(client, *[photo] * 40))
        form = {"prompt": "a", "reference_prompt": ["a", "b"]}
        answer = client.post("/v1/images/edits", data=form, files=[("image[]", ("a.png", photo))] * 3)
        assert "2 reference prompts for 3 references" in message(answer)
        assert "prompt is missing" in message(client.post("/v1/images/edits", files={"image": photo}))
        assert "0 references" in message(client.post("/v1/images/edits", data={"prompt": "a"}))
        assert "prompt" in message(client.post("/v1/images/generations", json={"prompt": ""}))
    assert running.runner.calls == []


BAD = {
    "prompt": ["x" * 20_000, "a\0b", "a\x1bb", "", 7, None, ["a"]],
    "n": [0, -1, 1000, "many", 1.5],
    "size": ["0x0", "17x16", "16x17", "9999x16", "4096x4096", "big", "16x16x16", "²²x²²"],
    "steps": [0, 1_000_000, "x", 10**30],
    "guidance_scale": ["nan", "inf", -1, 1e9],
    "image_guidance_scale": ["-inf", 1000],
    "guidance_mode": ["magic"],
    "coupling": [""],
    "seed": [-1, 2**80, "x"],
    "deadline": ["nan", 0, -1, 1e9],
    "response_format": ["file"],
    "output_format": ["gif", "bmp"],
    "output_compression": [-1, 101, 50],
    "quality": ["good"],
    "partial_images": [-1, 4],
    "stream": ["perhaps"],
    "mask": ["x"],
    "out": ["/tmp/x"],
    "model": ["../../etc/passwd"],
}


@pytest.mark.parametrize("name", BAD)
def test_row_10_texts_and_numbers(name, running) -> None:
    with running.client() as client:
        for value in BAD[name]:
            answer = client.post("/v1/images/generations", json={"prompt": "a", name: value})
            assert answer.status_code == (404 if name == "model" else 400), (value, answer.text)
            error = answer.json()["error"]
            assert name in (error["param"] or "") or name == "model"
    assert running.runner.calls == []


def test_row_10_bodies_that_are_no_bodies(running) -> None:
    kind = {"Content-Type": "application/json"}
    with running.client() as client:
        for body in (b"", b"{", b"[]", b"null", b"\xff", b'{"prompt": "\\ud800"}', b"[" * 100_000):
            message(client.post("/v1/images/generations", content=body, headers=kind))
        nan = b'{"prompt": "a", "guidance_scale": NaN}'
        message(client.post("/v1/images/generations", content=nan, headers=kind))
        message(client.post("/v1/images/generations", content=b"prompt=a"), 415)
        message(client.post("/v1/images/edits", json={"prompt": "a"}), 415)
        broken = {"Content-Type": "multipart/form-data; boundary=x"}
        message(client.post("/v1/images/edits", content=b"--x\r\nnonsense", headers=broken))
        message(client.post("/v1/images/edits", content=b"", headers={"Content-Type": "multipart/form-data"}))
        message(edit(client, prompt="a" * 1_000_000))
        message(client.put("/v1/images/edits"), 405)
        message(client.get("/nowhere"), 404)
    assert running.runner.calls == []


def test_row_10_bodies_that_are_too_large(running) -> None:
    def endless():
        for _ in range(MAX_JSON // 65536 + 2):
            yield b" " * 65536

    kind = {"Content-Type": "application/json"}
    with running.client() as client:
        big = {**kind, "Content-Length": str(MAX_BODY * 100)}
        address = httpx.URL(running.url)
        with socket.create_connection((address.host, address.port)) as raw:
            head = "".join(f"{name}: {value}\r\n" for name, value in big.items())
            raw.sendall(f"POST /v1/images/generations HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode())
            assert b" 413 " in raw.recv(4096)
        message(client.post("/v1/images/generations", content=endless(), headers=kind), 413)
        assert client.get("/healthz").status_code == 200


PATHS = (
    "/v1/jobs/../../etc/passwd",
    "/v1/jobs/..%2f..%2fetc%2fpasswd",
    "/v1/jobs/x/pictures/../../../../etc/passwd",
    "/v1/models/../../../../etc/passwd",
    "/v1/models/%2e%2e/%2e%2e/etc/passwd",
    "//etc/passwd",
    "/file=/etc/passwd",
    "/gradio_api/file=/etc/passwd",
    "/gradio_api/file=../../../../etc/passwd",
    "/static/../../../../etc/passwd",
    "/assets/..%2f..%2f..%2fetc%2fpasswd",
)


@pytest.mark.parametrize("path", PATHS)
def test_row_11_paths_lead_nowhere(path, running) -> None:
    address = httpx.URL(running.url)
    with socket.create_connection((address.host, address.port)) as raw:  # httpx would tidy the path up
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: raw.recv(65536), b""))
    assert b"root:" not in answer
    assert answer.split()[1] in (b"400", b"403", b"404", b"405")


def test_row_11_names_of_uploads_are_no_paths(running, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.png").symlink_to("/etc/passwd")
    with running.client() as client:
        for name in ("../../escape.png", "/etc/passwd", "secret.png", "..\\escape.png"):
            assert edit(client, (name, encoded(noise()))).status_code == 200
            said = message(edit(client, (name, b"broken")))
            assert "/" not in said.split(" is ")[0]
        for path in (
            "/etc/passwd",
            "secret.png",
            f"file://{tmp_path}/secret.png",
            "data:image/png;base64,AAAA",
        ):
            answer = client.post("/v1/images/edits", data={"prompt": "a", "image": path})
            assert "must be a file" in message(answer)
    assert os.listdir(tmp_path) == ["secret.png"]


class Web:
    """A web server on loopback: /photo.png, and /to?URL, which redirects there. Counts its requests."""

    def __init__(self) -> None:
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                web.asked.append(self.path)
                if self.path.startswith("/to?"):
                    self.send_response(302)
                    self.send_header("Location", self.path[4:])
                    self.end_headers()
                    return
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"x" * 5000 if self.path == "/large" else encoded(noise()))

            def log_message(self, *_: object) -> None:
                """The test's own output is enough."""

        self.asked: list[str] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def web():
    web = Web()
    yield web
    web.server.shutdown()
    web.server.server_close()


def by_address(client: httpx.Client, address: str) -> httpx.Response:
    return client.post("/v1/images/edits", data={"prompt": "a", "steps": "2", "image": address})


def test_row_12_addresses_are_off_by_default(running, web) -> None:
    with running.client() as client:
        for address in (f"{web.url}/photo.png", "data:image/png;base64,iVBORw0KGgo=", "photo.png"):
            assert "must be a file: this server takes no address" in message(by_address(client, address))
    assert web.asked == []


def test_row_12_private_machines_are_never_asked(serve, web) -> None:
    port = web.server.server_port
    running = serve(service={"photos": PhotoReader(Fetcher(10**6))})
    with running.client() as client:
        for host in (
            "127.0.0.1",
            "localhost",
            "[::1]",
            "0.0.0.0",
            "2130706433",
            "127.1",
            "[::ffff:127.0.0.1]",
        ):
            message(by_address(client, f"http://{host}:{port}/photo.png"))
        for address in ("http://169.254.169.254/latest/meta-data", "http://10.0.0.1/", "http://[fe80::1]/"):
            assert "not a public machine" in message(by_address(client, address))
        for address in (
            "file:///etc/passwd",
            "ftp://example.org/a",
            "http://user@example.org/",
            "http://",
            "http://[x",
        ):
            message(by_address(client, address))
    assert web.asked == []


def test_row_12_a_redirect_is_judged_like_the_first_address(serve, web) -> None:
    other = Web()
    try:
        asked: list[str] = []

        def allowed(address: str) -> bool:
            """As if this server were on the open internet, and nothing else."""
            asked.append(address)
            return address == "127.0.0.1" and len(asked) <= 1

        running = serve(service={"photos": PhotoReader(Fetcher(10**6, allowed=allowed))})
        with running.client() as client:
            answer = by_address(client, f"{web.url}/to?{other.url}/photo.png")
            assert "not a public machine" in message(answer)
        assert (len(web.asked), other.asked) == (1, [])
    finally:
        other.server.shutdown()
        other.server.server_close()


def test_row_12_what_is_fetched_is_bounded(serve, web) -> None:
    fetcher = Fetcher(4000, allowed=lambda address: True)
    running = serve(service={"photos": PhotoReader(fetcher)})
    with running.client() as client:
        assert by_address(client, f"{web.url}/photo.png").status_code == 200
        assert "more than 4000 bytes" in message(by_address(client, f"{web.url}/large"))
        loop = f"{web.url}/to?" * 9 + "/photo.png"
        assert "redirects more than" in message(by_address(client, loop))


def test_row_12_which_addresses_are_public() -> None:
    private = (
        "127.0.0.1 10.1.2.3 172.16.0.1 192.168.1.1 169.254.169.254 100.64.0.1 0.0.0.0 224.0.0.1 240.0.0.1"
    )
    private += " ::1 fe80::1 fe80::1%eth0 fc00::1 ::ffff:10.0.0.1 2002:7f00:0001:: ff02::1 ::"
    private += " 64:ff9b::a00:1 64:ff9b::808:808 64:ff9b:1::1 ::127.0.0.1 ::8.8.8.8 fec0::1 3fff::1 5f00::1"
    private += " 2001:0:808:808:0:0:f5ff:fffe 2001:0:a00:1:0:0:f7f7:f7f7 2002:a9fe:a9fe:: 2001:db8::1"
    # Metadata of clouds: Oracle, Azure, Alibaba, Amazon, Google
    private += " 192.0.0.192 168.63.129.16 100.100.100.200 169.254.170.2 fd00:ec2::254 fd20:ce::254"
    assert [each for each in private.split() if is_public(each)] == []
    public = "8.8.8.8 2606:4700::1111 ::ffff:8.8.8.8 2002:808:808:: 2001:0:808:808:0:0:f7f7:f7f7"
    assert [each for each in public.split() if not is_public(each)] == []


class Dripping(socketserver.BaseRequestHandler):
    """A machine that never falls silent, and never ends: a byte of a header, or of a body, at a time."""

    def handle(self) -> None:
        first = self.request.recv(65536)
        start = b"HTTP/1.0 200 OK\r\n\r\n" if b"/body" in first else b"HTTP/1.0 200 OK\r\nX: "
        with contextlib.suppress(OSError):
            self.request.sendall(start)
            while True:
                self.request.sendall(b"x")
                time.sleep(0.05)


def test_row_12_one_deadline_over_a_whole_fetch_beside_ordinary_uploads(serve) -> None:
    fetcher = Fetcher(10**6, seconds=0.6, allowed=lambda address: True)
    running = serve(service={"photos": PhotoReader(fetcher)})
    slow = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Dripping)
    slow.daemon_threads = True
    threading.Thread(target=slow.serve_forever, daemon=True).start()
    answers: list[tuple[str, float]] = []

    def ask(path: str) -> None:
        start = time.monotonic()
        with running.client() as client:
            said = message(by_address(client, f"http://127.0.0.1:{slow.server_address[1]}/{path}"))
        answers.append((said, time.monotonic() - start))

    waiting = [threading.Thread(target=ask, args=(path,)) for path in ("header", "body") * 2]
    try:
        for thread in waiting:
            thread.start()
        with running.client() as client:
            assert edit(client, encoded(noise())).status_code == 200
        assert not answers, "the upload came after the fetches"
        for thread in waiting:
            thread.join(20)
    finally:
        slow.shutdown()
        slow.server_close()
    assert len(answers) == 4
    assert all("takes longer than 0.6 s" in said and seconds < 2.5 for said, seconds in answers), answers


# Rows 13 and 14: load, cancelling, disconnecting, deadlines


def test_row_13_ten_times_more_requests_than_the_queue_holds(serve) -> None:
    running = serve(capacity=4)
    running.runner.gate.clear()
    before = megabytes()
    answers: list[httpx.Response] = []

    def ask(number: int) -> None:
        with running.client() as client:
            answers.append(edit(client, encoded(noise(64, 64)), seed=number))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    until(lambda: len(answers) >= 50 - 4 - 1, 60)  # four wait, one is under way
    running.runner.gate.set()
    for thread in threads:
        thread.join(60)
    codes = [answer.status_code for answer in answers]
    assert (codes.count(429) >= 45, codes.count(200) >= 4, len(codes)) == (True, True, 50)
    refused = [answer for answer in answers if answer.status_code == 429]
    assert all(1 <= int(answer.headers["retry-after"]) <= 600 for answer in refused)
    assert message(refused[0], 429).startswith("The queue is full")
    assert megabytes() - before < 100
    with running.client() as client:
        assert edit(client, encoded(noise())).status_code == 200


def test_row_14_a_client_that_hangs_up_frees_its_place(serve) -> None:
    running = serve(FakeRunner(step_seconds=0.01))
    with running.client() as client, pytest.raises(httpx.ReadTimeout):
        client.post("/v1/images/generations", json={"prompt": "a", "steps": 1000}, timeout=0.3)
    until(lambda: running.engine.unfinished == 0)
    steps = running.runner.steps
    assert steps < 200
    with running.client() as client:
        assert client.post("/v1/images/generations", json={"prompt": "b", "steps": 2}).status_code == 200
    assert running.runner.steps <= steps + 2 + 1


def test_row_14_deadlines(serve) -> None:
    running = serve(FakeRunner(step_seconds=0.01), deadline=0.3)
    with running.client() as client:
        started = time.monotonic()
        ask = {"prompt": "a", "steps": 1000}
        assert "0.3 s" in message(client.post("/v1/images/generations", json=ask), 504)
        assert "0.1 s" in message(client.post("/v1/images/generations", json=ask | {"deadline": 0.1}), 504)
        assert time.monotonic() - started < 5
        assert client.post("/v1/images/generations", json={"prompt": "b", "steps": 2}).status_code == 200


def test_row_16_the_smallest_picture_carries_the_mark(running) -> None:
    with running.client() as client:
        answer = client.post("/v1/images/generations", json={"prompt": "a", "size": "16x16"}).json()
    picture = Image.open(io.BytesIO(base64.b64decode(answer["data"][0]["b64_json"])))
    assert picture.size == (16, 16)
    assert picture.info[SOFTWARE_KEY] == answer["made_with"] == made_with(CARD)
    assert json.loads(picture.info["jedi"])["made_with"] == made_with(CARD)
