"""Photos from the web, where the server's owner allows it: from public machines only, in every hop."""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable
from urllib.parse import SplitResult, urljoin, urlsplit

from jedi_diffusion.errors import PictureError

REDIRECTS = (301, 302, 303, 307, 308)
MAX_HOPS = 4
CHUNK = 65536


def is_public(address: str) -> bool:
    """Whether a numeric address is on the open internet: not private, link-local, loopback or reserved."""
    parsed = ipaddress.ip_address(address.split("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        inner = parsed.ipv4_mapped or parsed.sixtofour or (parsed.teredo and parsed.teredo[1])
        if inner:
            return is_public(str(inner))
    return parsed.is_global and not parsed.is_multicast


class Fetcher:
    """Reads addresses into memory. The machine is looked up once, checked, and connected to by its number,
    so that a second answer of the name server cannot lead elsewhere.

    max_bytes of one answer; seconds for one photo in all; allowed says which numeric addresses may be asked.
    """

    def __init__(
        self, max_bytes: int, seconds: float = 10.0, allowed: Callable[[str], bool] = is_public
    ) -> None:
        self._max_bytes, self._seconds, self._allowed = max_bytes, seconds, allowed

    def fetch(self, address: str) -> bytes:
        """The bytes at an http(s) address. Raises PictureError with the address and the reason."""
        shown, end = address[:200], time.monotonic() + self._seconds
        try:
            for _ in range(MAX_HOPS):
                answer = self._ask(address, end)
                if isinstance(answer, bytes):
                    return answer
                address = urljoin(address, answer)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise PictureError(f"{shown} cannot be fetched: {error}.") from error
        raise PictureError(f"{shown} redirects more than {MAX_HOPS - 1} times.")

    def _ask(self, address: str, end: float) -> bytes | str:
        """The body, or where a redirect leads."""
        url = urlsplit(address)
        if url.scheme not in ("http", "https") or not url.hostname or url.username is not None:
            raise PictureError(f"{address[:200]} is not a plain http or https address.")
        connection = http.client.HTTPConnection(url.hostname, url.port or _port(url))
        connection.sock = self._connect(url, end)
        try:
            target = (url.path or "/") + (f"?{url.query}" if url.query else "")
            connection.request("GET", target, headers={"Accept": "image/*", "User-Agent": "jedi-diffusion"})
            answer = connection.getresponse()
            where = answer.getheader("Location")
            if answer.status in REDIRECTS and where:
                return where
            if answer.status != 200:
                raise PictureError(f"{address[:200]} answers with status {answer.status}.")
            return self._body(answer, address, end)
        finally:
            connection.close()

    def _connect(self, url: SplitResult, end: float) -> socket.socket:
        host, port = str(url.hostname), url.port or _port(url)
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        numbers = list(dict.fromkeys(str(each[4][0]) for each in found))
        if not all(self._allowed(number) for number in numbers):
            raise PictureError(f"{host} is not a public machine, so nothing is fetched from it.")
        plain = socket.create_connection((numbers[0], port), timeout=max(0.1, end - time.monotonic()))
        if url.scheme == "http":
            return plain
        try:
            return ssl.create_default_context().wrap_socket(plain, server_hostname=host)
        except BaseException:
            plain.close()
            raise

    def _body(self, answer: http.client.HTTPResponse, address: str, end: float) -> bytes:
        parts, total = [], 0
        while part := answer.read1(CHUNK):
            total += len(part)
            if total > self._max_bytes:
                raise PictureError(f"{address[:200]} has more than {self._max_bytes} bytes.")
            if time.monotonic() > end:
                raise PictureError(f"{address[:200]} takes longer than {self._seconds:g} s.")
            parts.append(part)
        return b"".join(parts)


def _port(url: SplitResult) -> int:
    return 443 if url.scheme == "https" else 80
