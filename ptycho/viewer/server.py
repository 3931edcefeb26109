"""A server for one page on this machine: loopback only, a secret in every address, fixed routes, no files.

What it answers is made by functions of the caller; nothing of a request is ever used as a path. It serves
while `serving` lasts and leaves nothing running.
"""

from __future__ import annotations

import hmac
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from ptycho.errors import PtychoError

ADDRESS = "127.0.0.1"
_REQUEST_TIMEOUT_S = 10.0
_POLICY = (
    "default-src 'none'; img-src 'self' data:; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)


class Answer(NamedTuple):
    """What a route gives: its content type and its bytes."""

    kind: str
    body: bytes


class Absent(Exception):
    """There is no such thing here: the answer is 404."""


@dataclass(frozen=True)
class Routes:
    """get: name -> answer; numbered: name -> answer for a whole number, as in `pattern/17`; post: name -> the
    only length that a body may have, and the answer for it."""

    get: Mapping[str, Callable[[], Answer]]
    numbered: Mapping[str, Callable[[int], Answer]]
    post: Mapping[str, tuple[int, Callable[[bytes], Answer]]]


@contextmanager
def serving(routes: Routes, port: int = 0) -> Iterator[str]:
    """Serve the routes for the time of a `with`; gives the address with its secret. port 0: any free one."""
    token = secrets.token_urlsafe(24)
    server = _Server(port, routes, token)
    worker = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    worker.start()
    try:
        yield f"http://{ADDRESS}:{server.server_port}/{token}/"
    finally:
        server.shutdown()
        server.server_close()
        worker.join(timeout=5)


class _Server(ThreadingHTTPServer):
    """A server that knows its routes and its secret."""

    daemon_threads = True

    def __init__(self, port: int, routes: Routes, token: str) -> None:
        super().__init__((ADDRESS, port), _Handler)
        self.routes, self.token = routes, token


class _Handler(BaseHTTPRequestHandler):
    """Answers one request, or refuses it: 403 for a wrong secret or host, 404 for an unknown route."""

    server: _Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "ptycho", ""
    timeout = _REQUEST_TIMEOUT_S

    def do_GET(self) -> None:
        """A page, a picture or numbers."""
        route = self._route()
        if route is None:
            return
        routes = self.server.routes
        name, _, number = route.partition("/")
        if route in routes.get:
            self._give(routes.get[route])
        elif name in routes.numbered and number.isascii() and number.isdigit() and len(number) < 10:
            self._give(lambda: routes.numbered[name](int(number)))
        else:
            self._refuse(404, "nothing here")

    def do_POST(self) -> None:
        """What the page saves."""
        route = self._route()
        if route is None:
            return
        if route not in self.server.routes.post:
            self._refuse(404, "nothing here")
            return
        length, take = self.server.routes.post[route]
        origin = self.headers.get("Origin")
        if origin is not None and origin != f"http://{self.headers.get('Host')}":
            self._refuse(403, "another page may not write")
        elif self.headers.get("Content-Length") != str(length):
            self._refuse(400, f"the body must have {length} bytes")
        else:
            body = self.rfile.read(length)
            if len(body) == length:
                self._give(lambda: take(body))

    def _route(self) -> str | None:
        """What of the address follows the secret; None where the request was refused."""
        port = self.server.server_port
        if self.headers.get("Host") not in (f"{ADDRESS}:{port}", f"localhost:{port}"):
            self._refuse(403, "unknown host")
            return None
        given, _, route = self.path.removeprefix("/").partition("/")
        if not hmac.compare_digest(given.encode("utf-8", "replace"), self.server.token.encode()):
            self._refuse(403, "wrong address: use the one that the command printed")
            return None
        return route

    def _give(self, make: Callable[[], Answer]) -> None:
        try:
            kind, body = make()
        except Absent as error:
            self._refuse(404, str(error))
        except PtychoError as error:
            self._refuse(409, str(error))
        else:
            self._send(200, kind, body)

    def _refuse(self, code: int, why: str) -> None:
        self.close_connection = True
        self._send(code, "text/plain; charset=utf-8", why.encode())

    def _send(self, code: int, kind: str, body: bytes) -> None:
        self.send_response(code)
        for name, value in (
            ("Content-Type", kind), ("Content-Length", str(len(body))), ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer"),
            ("Content-Security-Policy", _POLICY), ("Cross-Origin-Resource-Policy", "same-origin"),
        ):  # fmt: skip
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the command prints its one address."""
