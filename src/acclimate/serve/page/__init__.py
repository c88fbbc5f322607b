"""The status page: one document that asks for nothing but the server's own paths."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

__all__ = ["router"]

router = APIRouter()

_SCRIPTS = ("elements", "plots", "asking", "dialog", "list", "detail", "polling")


def _read(name: str) -> str:
    return resources.files(__name__).joinpath(name).read_text("utf-8")


def _allowed(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _document() -> tuple[str, dict[str, str]]:
    """The page and its headers: nothing runs or looks but what stands in it, and it speaks to this server alone."""
    style = _read("page.css")
    script = '"use strict";\n' + "\n".join(_read(f"{name}.js") for name in _SCRIPTS)
    policy = {
        "default-src": "'none'",
        "script-src": _allowed(script),
        "style-src": _allowed(style),
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    headers = {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    return _read("page.html").replace("{{style}}", style).replace("{{script}}", script), headers


_PAGE, _HEADERS = _document()


@router.get("/", include_in_schema=False)
async def page() -> HTMLResponse:
    """The page; it is the same for everybody."""
    return HTMLResponse(_PAGE, headers=_HEADERS)
