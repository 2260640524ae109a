"""Photos from the web, where the server's owner allows it: from public machines only, in every hop."""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from urllib.parse import SplitResult, urljoin, urlsplit

from jedi_diffusion.errors import PictureError

REDIRECTS = (301, 302, 303, 307, 308)
MAX_HOPS = 4
CHUNK = 65536


UNICAST = ipaddress.ip_network("2000::/3")
"""All that IPv6 has given out; translated, site-local and IPv4-compatible addresses lie outside."""
NOT_PUBLIC = [
    ipaddress.ip_network(each)
    for each in (
        "192.0.0.0/24",  # protocol assignments, Oracle's metadata among them
        "168.63.129.16/32",  # Azure's host, which answers its own machines alone
        "100.64.0.0/10",  # shared by a provider's machines, Alibaba's metadata among them
        "3fff::/20",  # documentation
    )
]
"""What `ipaddress` may take for the open internet, depending on its version, and is not."""


def is_public(address: str) -> bool:
    """Return whether a numeric address is on the open internet: not private, link-local, loopback or
    reserved, not a cloud's metadata, and no such address wrapped into another."""
    parsed = ipaddress.ip_address(address.split("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return is_public(str(parsed.ipv4_mapped))
        inner = [parsed.sixtofour] if parsed.sixtofour else list(parsed.teredo or ())
        if parsed not in UNICAST or not all(is_public(str(each)) for each in inner):
            return False
    if any(parsed in network for network in NOT_PUBLIC):
        return False
    tunnelled = isinstance(parsed, ipaddress.IPv6Address) and (parsed.sixtofour or parsed.teredo)
    return bool(tunnelled) or (parsed.is_global and not parsed.is_multicast)


class Fetcher:
    """Reads addresses into memory. The machine is looked up once, checked, and connected to by its number,
    so that a second answer of the name server cannot lead elsewhere.

    max_bytes of one answer; seconds for one photo in all, redirects, headers and all; allowed says which
    numeric addresses may be asked.
    """

    def __init__(
        self, max_bytes: int, seconds: float = 10.0, allowed: Callable[[str], bool] = is_public
    ) -> None:
        self._max_bytes, self.seconds, self._allowed = max_bytes, seconds, allowed

    def fetch(self, address: str) -> bytes:
        """Return the bytes at an http(s) address. Raises PictureError with the address and the reason."""
        shown, end = address[:200], time.monotonic() + self.seconds
        try:
            for _ in range(MAX_HOPS):
                answer = self._ask(address, end)
                if time.monotonic() > end:  # what is cut off may look like an end
                    raise self.too_slow(shown)
                if isinstance(answer, bytes):
                    return answer
                address = urljoin(address, answer)
        except (OSError, ValueError, http.client.HTTPException) as error:
            if time.monotonic() > end:
                raise self.too_slow(shown) from error
            raise PictureError(f"{shown} cannot be fetched: {error}.") from error
        raise PictureError(f"{shown} redirects more than {MAX_HOPS - 1} times.")

    def too_slow(self, address: str) -> PictureError:
        return PictureError(f"{address[:200]} takes longer than {self.seconds:g} s.")

    def _ask(self, address: str, end: float) -> bytes | str:
        """Return the body, or where a redirect leads."""
        url = urlsplit(address)
        if url.scheme not in ("http", "https") or not url.hostname or url.username is not None:
            raise PictureError(f"{address[:200]} is not a plain http or https address.")
        connection = http.client.HTTPConnection(url.hostname, url.port or _port(url))
        plain = self._connect(url, end)
        with closing(plain), _cut_off(plain, end), closing(connection):
            connection.sock = _secured(plain, url)
            target = (url.path or "/") + (f"?{url.query}" if url.query else "")
            connection.request("GET", target, headers={"Accept": "image/*", "User-Agent": "jedi-diffusion"})
            answer = connection.getresponse()
            where = answer.getheader("Location")
            if answer.status in REDIRECTS and where:
                return where
            if answer.status != 200:
                raise PictureError(f"{address[:200]} answers with status {answer.status}.")
            return self._body(answer, address)

    def _connect(self, url: SplitResult, end: float) -> socket.socket:
        host, port = str(url.hostname), url.port or _port(url)
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        numbers = list(dict.fromkeys(str(each[4][0]) for each in found))
        if not all(self._allowed(number) for number in numbers):
            raise PictureError(f"{host} is not a public machine, so nothing is fetched from it.")
        return socket.create_connection((numbers[0], port), timeout=max(0.1, end - time.monotonic()))

    def _body(self, answer: http.client.HTTPResponse, address: str) -> bytes:
        parts, total = [], 0
        while part := answer.read1(CHUNK):
            total += len(part)
            if total > self._max_bytes:
                raise PictureError(f"{address[:200]} has more than {self._max_bytes} bytes.")
            parts.append(part)
        return b"".join(parts)


@contextmanager
def _cut_off(connected: socket.socket, end: float) -> Iterator[None]:
    """Shut a connection down at its end, whatever is being waited for: time-outs of sockets begin anew with
    each byte."""
    guard = connected.dup()  # another handle on the same connection, which TLS does not take over

    def cut() -> None:
        with suppress(OSError):
            guard.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(max(0.0, end - time.monotonic()), cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        guard.close()


def _secured(plain: socket.socket, url: SplitResult) -> socket.socket:
    if url.scheme == "http":
        return plain
    return ssl.create_default_context().wrap_socket(plain, server_hostname=str(url.hostname))


def _port(url: SplitResult) -> int:
    return 443 if url.scheme == "https" else 80
