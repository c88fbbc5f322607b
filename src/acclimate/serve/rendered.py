"""An answer as an HTTP response."""

from __future__ import annotations

from fastapi.responses import Response

from acclimate.serve.answers import Answer, as_json, as_safetensors
from acclimate.serve.bodies import JSON, SAFETENSORS

__all__ = ["render"]


def render(answer: Answer, accept: str) -> Response:
    """As safetensors with the facts as headers where that is accepted, otherwise as JSON."""
    return (_safetensors if SAFETENSORS in accept.lower() else _json)(answer)


def _json(answer: Answer) -> Response:
    return Response(as_json(answer), media_type=JSON, headers={"Acclimate-Version": str(answer.version)})


def _safetensors(answer: Answer) -> Response:
    facts = {f"Acclimate-{name.replace('_', '-').title()}": _text(value) for name, value in answer.facts().items()}
    return Response(as_safetensors(answer), media_type=SAFETENSORS, headers=facts)


def _text(value: str | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
