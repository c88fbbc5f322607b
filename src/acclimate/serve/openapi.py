"""The server's description for machines: what FastAPI finds out, and what only we know."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from acclimate.serve.bodies import JSON
from acclimate.serve.examples import ANSWERS, PROBLEMS, REQUESTS
from acclimate.serve.schemas import ERRORS

__all__ = ["describe"]

_VERSION = {
    "Acclimate-Version": {
        "description": "The version that the logits come from.",
        "required": True,
        "schema": {"type": "integer", "minimum": 0},
    }
}
_RETRY = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}}
_SCHEME = {"WWW-Authenticate": {"description": "Bearer.", "schema": {"type": "string"}}}
_FAILED = "The server failed; its log says why."


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of a state server, with an example of every request and response.

    Each operation goes by the name of its function.
    """
    whole = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
    for verbs in whole["paths"].values():
        for operation in verbs.values():
            _complete(operation, operation["operationId"])
    whole["servers"] = [{"url": "/", "description": "This server."}]
    return whole


def _complete(operation: dict[str, Any], name: str) -> None:
    for each in list(operation.get("parameters", ())):
        if each["name"] == "accept":  # the responses' content types say it, and OpenAPI ignores such a parameter
            operation["parameters"].remove(each)
        elif each["name"] == "stream":
            each["example"] = "line-3"
    if name in REQUESTS:
        content = operation["requestBody"]["content"][JSON]
        content["examples"] = {key: {"value": value} for key, value in REQUESTS[name].items()}
    responses = operation["responses"]
    responses["500"] = {"description": _FAILED, "content": {JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}}}
    for code, response in responses.items():
        _illustrate(response, int(code), name)
        headers = {429: _RETRY, 503: _RETRY, 401: _SCHEME}.get(int(code), {})
        if int(code) == 200 and name == "predict":
            headers = _VERSION
        if headers and name != "readyz":
            response["headers"] = headers


def _illustrate(response: dict[str, Any], code: int, name: str) -> None:
    content = response.get("content", {}).get(JSON)
    if content is None:
        return
    if code == 200:
        content["example"] = ANSWERS[name]
    elif name == "readyz" and code == 503:
        content["example"] = {"ready": False, "reason": "the server is starting"}
    else:
        found, expected, do = PROBLEMS[code]
        content["example"] = {"detail": {"found": found, "expected": expected, "do": do}}
        response.setdefault("description", ERRORS.get(code, _FAILED))
