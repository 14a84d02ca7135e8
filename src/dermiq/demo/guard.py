"""Guard of the page's server: requests to its own host alone, and no uploaded file."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from ipaddress import ip_address
from socket import getfqdn, gethostname
from typing import Any

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

_HERE = frozenset({"localhost", "127.0.0.1", "::1"})
_EVERYWHERE = ("0.0.0.0", "::", "")
_OTHER_HOST = "This page answers to its own host (see --host), and a proxy has to leave the Host header at that."
_UPLOADS = "/upload"  # Gradio's own way of taking files, which would keep them on disk


class Guard:
    """ASGI middleware that passes on requests to a host of this server alone, against DNS rebinding.

    Args:
        app: answers the requests.
        host: that the server is bound to; bound to all addresses, any of them and the machine's name are its hosts too.
    """

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], host: str) -> None:
        self.app = app
        self.bound_everywhere = host in _EVERYWHERE
        names = {gethostname(), getfqdn()} if self.bound_everywhere else {host}
        self.names = _HERE | {name.lower() for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it in a sentence."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif not self.knows(host_of(scope)):
            await _refuse(scope, send, 403, _OTHER_HOST)
        elif scope["path"].rstrip("/").endswith(_UPLOADS):
            await _refuse(scope, send, 413, "No file is taken here: choose the photograph in the page.")
        else:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the page answer; what fails before the first byte is a request that the page itself never makes."""
        begun = False

        async def note(message: Any) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, receive, note)
        except Exception as error:
            if begun:
                raise
            log.warning("a request that the page never makes: %r", error)
            await _refuse(scope, send, 400, "The page asks nothing like this. Load it anew, and ask there.")

    def knows(self, host: str) -> bool:
        """True if a name or an address is this server's."""
        return host in self.names or (self.bound_everywhere and _is_address(host))


def host_of(scope: Scope) -> str:
    """The host that a request names, in lower case and without its port; empty if it names none or several."""
    named = [value for name, value in scope["headers"] if name.lower() == b"host"]
    host = named[0].decode("latin-1").strip().lower() if len(named) == 1 else ""
    bracketed, closed, port = host.partition("]")
    if host.startswith("["):
        return bracketed[1:] if closed and (not port or port.startswith(":")) else ""
    return host.partition(":")[0] if host.count(":") < 2 else ""


def _is_address(host: str) -> bool:
    try:
        return bool(ip_address(host))
    except ValueError:
        return False


async def _refuse(scope: Scope, send: Send, status: int, text: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": text})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
