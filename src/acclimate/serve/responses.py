"""What a client makes of a response: an answer, a value, or an error that says what to do."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from acclimate.serve.answers import Answer, UpdateOutcome
from acclimate.serve.refused import Refused

if TYPE_CHECKING:
    import httpx

__all__ = ["ServerError", "Unreachable", "read_json", "read_refusal", "read_safetensors", "read_value"]


class ServerError(Refused):
    """What the server refused, or what kept it from being asked: `found`, `expected`, `do` and the HTTP `status`.

    `status` is 0 where no answer came. `retry_after` is what the server said, in seconds, or None.
    """


class Unreachable(ServerError):
    """No connection could be made, so the request was never sent."""


def _seconds(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


def read_refusal(response: httpx.Response) -> ServerError:
    """The error that a response tells, whoever sent it."""
    try:
        told = response.json()["detail"]
        found, expected, do = str(told["found"]), str(told["expected"]), str(told["do"])
    except (ValueError, KeyError, TypeError):
        found = f"HTTP {response.status_code} {response.reason_phrase} from {response.url}."
        expected, do = "an answer of a state server", "Check the address and what stands between."
    after = _seconds(response.headers.get("Retry-After"))
    return ServerError(response.status_code, found=found, expected=expected, do=do, retry_after=after)


def _strange(response: httpx.Response, error: Exception) -> ServerError:
    return ServerError(
        response.status_code,
        found=f"an answer of {response.url} that cannot be read: {type(error).__name__} {error}.",
        expected="what this version of the client understands",
        do="Use the same version of acclimate on both sides.",
    )


def read_value(response: httpx.Response, *needed: str) -> dict[str, Any]:
    """The JSON object of a response. Raises ServerError where it is none, or lacks what is needed."""
    try:
        found = response.json()
        if not isinstance(found, dict):
            raise TypeError(f"{type(found).__name__} in place of an object")
        for name in needed:
            if name not in found:
                raise KeyError(name)
        return found
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _strange(response, error) from error


def _answer(facts: dict[str, Any], logits: Tensor) -> Answer:
    update: UpdateOutcome = facts["update"]
    return Answer(
        str(facts["stream"]),
        int(facts["version"]),
        logits,
        int(facts["held"]),
        facts["held_at_source"] in (True, "true"),
        update,
        str(facts["request"]),
        str(facts["batch"]),
    )


def read_safetensors(response: httpx.Response) -> Answer:
    """The answer whose logits are the body and whose facts are the headers. Raises ServerError."""
    names = ("stream", "version", "held", "held_at_source", "update", "request", "batch")
    try:
        facts = {name: response.headers[f"Acclimate-{name.replace('_', '-')}"] for name in names}
        return _answer(facts, safetensors.torch.load(response.content)["logits"])
    except (SafetensorError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise _strange(response, error) from error


def read_json(response: httpx.Response) -> Answer:
    """The answer of a JSON body; null stands for NaN. Raises ServerError."""

    def numbers(value: Any) -> Any:
        if isinstance(value, list):
            return [numbers(each) for each in value]
        return math.nan if value is None else value

    facts = read_value(response)
    try:
        return _answer(facts, torch.tensor(numbers(facts["logits"])))
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise _strange(response, error) from error
