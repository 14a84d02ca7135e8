"""HTTP requests to OpenAI-compatible model servers; a failure names the server and the remedy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from dermiq.schema import TrainingError

_open = build_opener(ProxyHandler({})).open  # a server of one's own is behind no proxy


def call(url: str, body: Mapping[str, Any] | None, timeout: float, remedy: str) -> bytes:
    """The response to a POST of `body` as JSON, or to a GET.

    Args:
        url: of the interface.
        body: of the request; None for a GET.
        timeout: seconds to wait for an answer.
        remedy: how to start such a server, in sentences.

    Raises:
        TrainingError: if the server cannot be reached or refuses.
    """
    data = None if body is None else json.dumps(body).encode()
    try:
        with _open(Request(url, data, {"Content-Type": "application/json"}), timeout=timeout) as reply:
            return bytes(reply.read())
    except HTTPError as error:
        with error:
            reason = f"{error.code} {_message(error.read())}"
    except (OSError, HTTPException) as error:
        cause = getattr(error, "reason", error)
        late = isinstance(cause, TimeoutError)
        reason = f"no answer within {timeout:g} seconds (`timeout`)" if late else str(cause)
    raise TrainingError(f"{url}: {reason.rstrip('.')}. {remedy}")


def _message(body: bytes) -> str:
    """The message in an error's body."""
    text = body.decode(errors="replace")
    try:
        content = json.loads(text)
        return str(content["error"]["message"] if "error" in content else content["detail"])
    except (ValueError, KeyError, TypeError):
        return text[:300]
