"""The page as a document: whole in itself, and told by its headers to stay so."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re

import httpx
import pytest
from fastapi import FastAPI

from acclimate.serve.page import router


@pytest.fixture(scope="module")
def page() -> httpx.Response:
    app = FastAPI()
    app.include_router(router)

    async def asked() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
            return await client.get("/")

    return asyncio.run(asked())


def test_it_asks_for_nothing_but_the_server_itself(page):
    """No address of anything else, no attribute that runs code or holds a style: all of it stands in two elements."""
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    outside = set(re.findall(r"(?:https?:)?//[\w.-]+\.[\w./-]+", page.text))
    assert outside == {"http://www.w3.org/2000/svg"}, "the name of a namespace, not an address to load from"
    tags = re.sub(r"<(script|style)>.*?</\1>", "", page.text, flags=re.S)
    assert len(tags) < len(page.text) - 10_000
    assert not re.findall(r"\s(?:on\w+|style|src|action)\s*=", tags)
    assert re.findall(r'href="([^"]*)"', tags) == ["data:,"]


def test_its_policy_names_the_script_and_the_style_by_their_hashes(page):
    policy = dict(part.split(" ", 1) for part in page.headers["content-security-policy"].split("; "))
    for element, directive in (("script", "script-src"), ("style", "style-src")):
        (text,) = re.findall(rf"<{element}>(.*?)</{element}>", page.text, re.S)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert policy.pop(directive) == f"'sha256-{digest}'"
    assert policy == {
        "default-src": "'none'",
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    assert page.headers["cache-control"] == "no-store"
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["referrer-policy"] == "no-referrer"


def test_nothing_turns_text_into_markup(page):
    (script,) = re.findall(r"<script>(.*?)</script>", page.text, re.S)
    found = re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|Storage|cookie", script)
    assert not found
