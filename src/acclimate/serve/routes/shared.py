"""What several paths need."""

from __future__ import annotations

import secrets
from typing import Annotated, Any

from fastapi import Depends, Path, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from acclimate.serve.refused import Refused
from acclimate.serve.schemas import ERRORS, Problem
from acclimate.serve.service import Service
from acclimate.serve.stream import NAME

__all__ = ["Allowed", "Serving", "StreamName", "errors"]


async def _service(request: Request) -> Service:
    return request.app.state.service


Serving = Annotated[Service, Depends(_service)]

StreamName = Annotated[str, Path(pattern=NAME, description="The stream's id: any name, no dot first.")]

_bearer = HTTPBearer(auto_error=False, description="The token that the server was started with.")


async def _allowed(service: Serving, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> None:
    token = service.settings.token
    if token is None:
        raise Refused(
            403,
            found="a control verb.",
            expected="a server that was started with a token",
            do="Start it with --token-file FILE.",
        )
    if given is None or not secrets.compare_digest(given.credentials.encode(), token.encode()):
        raise Refused(
            401,
            found="no token." if given is None else "another token.",
            expected="the token that the server was started with",
            do="Send it: Authorization: Bearer TOKEN.",
        )


Allowed = Depends(_allowed)
"""A control verb: off without a token."""


def errors(*codes: int) -> dict[int | str, dict[str, Any]]:
    """For a path's documentation."""
    return {code: {"model": Problem, "description": ERRORS[code]} for code in codes}
