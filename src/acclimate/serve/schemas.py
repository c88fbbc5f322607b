"""What requests and responses look like, for `/openapi.json`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from acclimate.serve.bodies import JSON, SAFETENSORS
from acclimate.serve.stream import NAME

__all__ = [
    "ERRORS",
    "PREDICT_BODY",
    "Answered",
    "Frozen",
    "Info",
    "Keep",
    "Kept",
    "Line",
    "Lines",
    "Problem",
    "Published",
    "Ready",
    "Rollback",
    "Snapshots",
    "Status",
]

Condition = Literal["adapting", "held at source", "frozen"]
_Rows = list[Any]


class _Explained(BaseModel):
    found: str
    expected: str
    do: str


class Problem(BaseModel):
    """Every error."""

    detail: _Explained


class Ready(BaseModel):
    ready: bool
    reason: str


class Info(BaseModel):
    model: str
    fingerprint: str
    method: dict[str, Any]
    answer: str
    seed: int
    guard: Any
    update: Literal["background", "inline", "off"]
    acclimate: str
    torch: str
    limits: dict[str, float]


class Answered(BaseModel):
    stream: str
    version: int
    logits: _Rows = Field(description="One list for each row; null where a logit is not finite.")
    labels: _Rows = Field(description="The largest logit's place; null where a row's logits are not finite.")
    held: int = Field(description="Rows answered by the source model.")
    held_at_source: bool
    update: Literal["queued", "done", "off", "frozen", "dropped"]
    request: str
    batch: str = Field(description="The first of the requests that were answered in one forward with this one.")


class Line(BaseModel):
    stream: str
    version: int
    state: Condition
    batches: int
    updates: int
    refused: int
    rollbacks: int
    held_share: float


class Lines(BaseModel):
    streams: list[Line]


class Status(Line):
    frozen: bool
    held_at_source: bool
    requests: int
    rows: int
    idle: int
    dropped: int
    resets: int
    bytes: int
    note: str | None
    signals: dict[str, float | None]
    history: list[dict[str, float | None]]


class Kept(BaseModel):
    version: int
    name: str | None
    current: bool
    stored: bool
    bytes: int | None


class Snapshots(BaseModel):
    stream: str
    snapshots: list[Kept]


class Published(BaseModel):
    stream: str
    version: int
    frozen: bool


class Rollback(BaseModel, extra="forbid"):
    version: int = Field(ge=0, le=2**53, strict=True)


class Frozen(BaseModel, extra="forbid"):
    frozen: bool = Field(strict=True)


class Keep(BaseModel, extra="forbid"):
    name: str = Field(pattern=NAME)


ERRORS: dict[int, str] = {
    401: "The token is not the one that was configured.",
    403: "Control verbs are off: no token was configured.",
    404: "There is no such stream or version.",
    409: "It cannot be done as things stand.",
    413: "The body, or the batch in it, is beyond the limit.",
    415: "The content type is neither JSON nor safetensors.",
    422: "The request cannot be understood, or the model cannot take the batch.",
    429: "This stream's queue is full.",
    503: "The server is not ready, is about to end, or is full.",
    504: "No answer within the deadline; the request has left no trace.",
}

PREDICT_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            JSON: {
                "schema": {
                    "oneOf": [
                        {
                            "type": "object",
                            "title": "Numbers",
                            "required": ["inputs"],
                            "additionalProperties": False,
                            "properties": {"inputs": {"type": "array", "minItems": 1, "items": {}}},
                        },
                        {
                            "type": "object",
                            "title": "Images",
                            "required": ["images"],
                            "additionalProperties": False,
                            "properties": {
                                "images": {
                                    "type": "array",
                                    "minItems": 1,
                                    "items": {"type": "string", "contentEncoding": "base64"},
                                }
                            },
                        },
                    ]
                }
            },
            SAFETENSORS: {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
