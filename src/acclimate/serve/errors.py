"""Every error of an application in one shape: what was found, what was expected, what to do."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from acclimate.serve.refused import Refused

__all__ = ["tell", "tell_errors"]


def tell(refused: Refused) -> JSONResponse:
    """The one shape of every error."""
    headers = {} if refused.retry_after is None else {"Retry-After": str(refused.retry_after)}
    if refused.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(refused.body(), refused.status, headers)


def tell_errors(app: FastAPI) -> None:
    """Let an application tell its errors, and those of FastAPI, in this shape."""

    async def on_refused(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, Refused)
        return tell(error)

    async def on_invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        found = f"{place}: {first['msg']}."
        return tell(Refused(422, found=found, expected="what /openapi.json says", do="Mend the request."))

    async def on_http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        unreadable = error.status_code == 400  # of a body that is not even text
        answer = tell(
            Refused(
                422 if unreadable else error.status_code,
                found=f"{request.method} {request.url.path}: {error.detail}.",
                expected="what /openapi.json says",
                do="Mend the request.",
            )
        )
        answer.headers.update(error.headers or {})
        return answer

    async def on_failure(request: Request, error: Exception) -> JSONResponse:
        return tell(
            Refused(
                500,
                found=f"the server failed: {type(error).__name__}.",
                expected="an answer",
                do="See the server's log.",
            )
        )

    app.add_exception_handler(Refused, on_refused)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(Exception, on_failure)
