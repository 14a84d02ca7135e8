"""Requests to model servers of OpenAI's interface, whose failures name the server and the remedy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from dermiq.schema import TrainingError

_open = build_opener(ProxyHandler({})).open  # a training's own server stands behind no proxy


def call(url: str, body: Mapping[str, Any] | None, timeout: float, remedy: str) -> bytes:
    """What a POST of `body` as JSON, or a GET without one, is answered.

    Args:
        url: of the interface.
        body: what is asked; None for a GET.
        timeout: seconds to wait for an answer.
        remedy: sentences that tell how to start such a server.

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
    """What an error's body says."""
    text = body.decode(errors="replace")
    try:
        said = json.loads(text)
        return str(said["error"]["message"] if "error" in said else said["detail"])
    except (ValueError, KeyError, TypeError):
        return text[:300]
