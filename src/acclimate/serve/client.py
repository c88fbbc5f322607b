"""A client of the state server: batches go out and answers come back as tensors, bit for bit."""

from __future__ import annotations

import random
import re
import time
from typing import TYPE_CHECKING, Any, Literal, Self

import safetensors.torch
import torch
from torch import Tensor

from acclimate.core.config import at_least, one_of, positive, whole
from acclimate.serve.answers import Answer
from acclimate.serve.bodies import SAFETENSORS
from acclimate.serve.responses import ServerError, Unreachable, read_json, read_refusal, read_safetensors, read_value
from acclimate.serve.stream import NAME
from acclimate.streams.shared import require

if TYPE_CHECKING:
    import httpx
    import numpy as np

__all__ = ["Answer", "Client", "ServerError", "Unreachable"]

_FULL = (429, 503)
_CHANCE = random.SystemRandom()


class Client:
    """Talks to one state server. Threads may share it; close it, or use it in a `with` block.

    Arguments: `address`, of the server; `token`, opens the control verbs (rollback, reset, freeze, keep, delete);
    `timeout`, seconds > 0 that the server may keep silent within an attempt; `retries`, how often a request is tried
    again, a whole number of at least 0; `longest_wait`, seconds at most between two attempts.

    A server that is full or not ready (429, 503) is asked again after the seconds that it names, and so is one that
    cannot be reached. A request that may have been learned from is never sent twice: where the connection breaks
    after sending, the error says so.

    Every method raises ServerError for what the server refuses and where it cannot be reached, and ValueError for a
    stream id that no server takes and a token that cannot be sent; RuntimeError once it is closed. Needs httpx, from
    `acclimate[serve]`; ImportError says so.

    >>> with Client("http://127.0.0.1:8000", retries=0) as client:
    ...     client.address
    'http://127.0.0.1:8000'
    """

    def __init__(
        self,
        address: str = "http://127.0.0.1:8000",
        token: str | None = None,
        *,
        timeout: float = 30.0,
        retries: int = 5,
        longest_wait: float = 10.0,
    ) -> None:
        if not address.startswith(("http://", "https://")):
            raise ValueError(f"the address is {address!r}, expected http://HOST:PORT or https://HOST.")
        positive(timeout=timeout)
        whole(0, retries=retries)
        at_least(0, longest_wait=longest_wait)
        self.address = address.rstrip("/")
        self._retries, self._longest = retries, longest_wait
        headers = {} if token is None else {"Authorization": f"Bearer {_sendable(token)}"}
        http = require("httpx", "The client", "serve")
        self._http: httpx.Client = http.Client(base_url=self.address, headers=headers, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    # -- answers ---------------------------------------------------------------------------------------

    def predict(
        self,
        stream: str,
        x: Tensor | np.ndarray[Any, Any],
        *,
        update: bool = True,
        encoding: Literal["safetensors", "json"] = "safetensors",
    ) -> Answer:
        """Answer a batch `[N, ...]`, and let the stream learn from it unless `update` is False.

        The answer has `logits` on the CPU, the `version` that they come from, how many rows the source model answered
        (`held`) and what becomes of the `update`. As "safetensors", input and logits travel bit for bit; "json" is
        for servers behind something that understands nothing else, and turns logits that are not finite into NaN.
        """
        one_of("safetensors", "json", encoding=encoding)
        batch = torch.as_tensor(x).detach().cpu()
        path = f"{_path(stream)}/predict"
        asked = {"update": str(update).lower()}
        if encoding == "json":
            return read_json(self._ask("POST", path, params=asked, json={"inputs": batch.tolist()}))
        body = safetensors.torch.save({"inputs": batch.contiguous()})
        headers = {"Content-Type": SAFETENSORS, "Accept": SAFETENSORS}
        return read_safetensors(self._ask("POST", path, params=asked, content=body, headers=headers))

    # -- looking ---------------------------------------------------------------------------------------

    def info(self) -> dict[str, Any]:
        """What is served: model, method, versions, limits."""
        return read_value(self._ask("GET", "/v1/info"))

    def ready(self) -> bool:
        """Whether requests are taken; False too where nothing can be reached. Asks once."""
        try:
            return bool(read_value(self._ask("GET", "/readyz", retries=0), "ready")["ready"])
        except ServerError:
            return False

    def streams(self) -> list[dict[str, Any]]:
        """All streams, a line each."""
        return read_value(self._ask("GET", "/v1/streams"), "streams")["streams"]

    def status(self, stream: str) -> dict[str, Any]:
        """One stream: version, counts, the guard's signals, and the recent past under `history`."""
        return read_value(self._ask("GET", _path(stream)))

    def snapshots(self, stream: str) -> list[dict[str, Any]]:
        """The versions of a stream that can be returned to, oldest first."""
        return read_value(self._ask("GET", f"{_path(stream)}/snapshots"), "snapshots")["snapshots"]

    # -- control ---------------------------------------------------------------------------------------

    def rollback(self, stream: str, version: int) -> int:
        """Return to the state of a kept version; gives the number under which it is published now."""
        return self._command(stream, "/rollback", {"version": version})

    def reset(self, stream: str) -> int:
        """Return to the source; gives the number of the new version."""
        return self._command(stream, "/reset", {})

    def freeze(self, stream: str, frozen: bool = True) -> int:
        """Learn no more, or with `frozen=False` learn again; gives the current version."""
        return self._command(stream, "/freeze", {"frozen": frozen})

    def keep(self, stream: str, name: str) -> int:
        """Keep the current version under a name; gives its number."""
        return self._command(stream, "/snapshots", {"name": name})

    def delete(self, stream: str) -> None:
        """Forget a stream and all its versions."""
        self._ask("DELETE", _path(stream))

    def _command(self, stream: str, verb: str, value: dict[str, Any]) -> int:
        return int(read_value(self._ask("POST", _path(stream) + verb, json=value), "version")["version"])

    # -- asking ----------------------------------------------------------------------------------------

    def _ask(self, verb: str, path: str, *, retries: int | None = None, **request: Any) -> httpx.Response:
        left = self._retries if retries is None else retries
        wait = 0.25
        while True:
            try:
                return self._ask_once(verb, path, request)
            except ServerError as error:
                broke = isinstance(error, Unreachable) or (verb == "GET" and error.status == 0)
                again = broke or error.status in _FULL
                if not again or left < 1:
                    raise
                named = error.retry_after
            left -= 1
            # clients that were refused together should not come back together
            time.sleep(min(self._longest, wait * _CHANCE.uniform(0.5, 1) if named is None else named))
            wait *= 2

    def _ask_once(self, verb: str, path: str, request: dict[str, Any]) -> httpx.Response:
        import httpx

        try:
            response = self._http.request(verb, path, **request)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise Unreachable(
                0,
                found=f"no server at {self.address}: {error}.",
                expected="one that takes the connection",
                do="Start it with acclimate serve, or correct the address.",
            ) from error
        except httpx.RequestError as error:
            raise ServerError(
                0,
                found=f"{self.address} broke off: {type(error).__name__} {error}.",
                expected="a whole answer in time",
                do="The request may have been answered and learned: compare the stream's version before you repeat it.",
            ) from error
        if response.is_success:
            return response
        raise read_refusal(response)


def _sendable(token: str) -> str:
    """A token without what surrounds it in a file."""
    bare = token.strip()
    if not bare.isascii() or not bare.isprintable():
        raise ValueError("the token holds characters that no header can, expected ASCII. Give it as the server has it.")
    return bare


def _path(stream: str) -> str:
    if not re.fullmatch(NAME, stream):  # a URL would lead elsewhere
        raise ValueError(
            f"the stream id is {stream!r}, expected 1 to 64 letters, digits, dots, dashes or underscores, no dot first."
        )
    return f"/v1/streams/{stream}"
