"""A server that speaks the OpenAI protocol as far as a prompt writer asks, and misbehaves on request."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def completion(text: object) -> bytes:
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


class Server:
    """Answers the n-th trial of a request by `script(handler, n, request's text)`."""

    def __init__(self) -> None:
        self.script: Callable[[Any, int, str], None] = lambda handler, trial, text: handler.reply(
            200, completion(f"you said {text}")
        )
        self.trials: Counter[str] = Counter()
        self.times: list[float] = []
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.stop = threading.Event()
        lock, server = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                text = body["messages"][0]["content"]
                with lock:
                    server.trials[text] += 1
                    trial = server.trials[text]
                    server.times.append(time.monotonic())
                    server.bodies.append(body)
                    named = {name.lower(): value for name, value in self.headers.items()}
                    server.headers.append({**named, "path": self.path})
                with suppress(OSError):  # the client has hung up, as some tests want
                    server.script(self, trial, text)

            def reply(self, status: int, data: bytes, **headers: str) -> None:
                self.send_response(status)
                usual = {"Content-Length": str(len(data)), "Content-Type": "application/json"}
                for name, value in {**usual, "retry-after-ms": "5", **headers}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                """The test's output stays clean."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self) -> None:
        self.stop.set()
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()
