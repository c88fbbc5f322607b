"""Examples of requests and responses, for `/openapi.json`, by the name of the function that answers."""

from __future__ import annotations

from typing import Any

from acclimate.serve.bodies import JSON, SAFETENSORS

__all__ = ["ANSWERS", "PROBLEMS", "REQUESTS"]

_FACTS: dict[str, Any] = {
    "stream": "line-3",
    "version": 41,
    "held": 0,
    "held_at_source": False,
    "update": "queued",
    "request": "5f0c9a1e-118",
    "batch": "5f0c9a1e-118",
}
_LINE: dict[str, Any] = {
    "stream": "line-3",
    "version": 41,
    "state": "adapting",
    "batches": 60,
    "updates": 41,
    "refused": 2,
    "rollbacks": 0,
    "held_share": 0.05,
}
_POINT = {"time": 1790000000.0, "version": 41, "entropy": 0.31, "distance": 0.02, "updated": 1.0, "held": 0.0}
_PUBLISHED = {"stream": "line-3", "version": 42, "frozen": False}

REQUESTS: dict[str, dict[str, Any]] = {
    "predict": {"numbers": {"inputs": [[[[0.1, 0.9], [0.4, 0.6]]]]}, "images": {"images": ["iVBORw0KGgo="]}},
    "rollback": {"back": {"version": 38}},
    "freeze": {"freeze": {"frozen": True}},
    "keep": {"keep": {"name": "before-the-rain"}},
}
ANSWERS: dict[str, Any] = {
    "livez": {"live": True},
    "readyz": {"ready": True, "reason": ""},
    "info": {
        "model": "ResidualNet",
        "fingerprint": "9b74c9897bac770ffc029102a200c5de9b74c9897bac770ffc029102a200c5de",
        "method": {"name": "tent", "learning_rate": 0.001},
        "answer": "before",
        "seed": 0,
        "guard": None,
        "update": "background",
        "acclimate": "0.1.0",
        "torch": "2.13.0",
        "limits": {"rows": 1024, "body_bytes": 33554432},
    },
    "predict": {**_FACTS, "logits": [[0.2, 3.1, -1.0]], "labels": [1]},
    "listed": {"streams": [_LINE]},
    "status": {
        **_LINE,
        "frozen": False,
        "held_at_source": False,
        "requests": 60,
        "rows": 480,
        "idle": 17,
        "dropped": 0,
        "resets": 0,
        "bytes": 22320,
        "note": None,
        "signals": {"entropy": 0.31, "distance": 0.02},
        "history": [_POINT],
    },
    "snapshots": {
        "stream": "line-3",
        "snapshots": [{"version": 41, "name": "before-the-rain", "current": True, "stored": True, "bytes": 5580}],
    },
    "rollback": _PUBLISHED,
    "reset": _PUBLISHED,
    "freeze": {"stream": "line-3", "version": 41, "frozen": True},
    "keep": {**_PUBLISHED, "version": 41},
    "delete": {"stream": "line-3", "version": 41, "frozen": True},
}
PROBLEMS = {
    401: ("another token.", "the token that the server was started with", "Send it: Authorization: Bearer TOKEN."),
    403: ("a control verb.", "a server that was started with a token", "Start it with --token-file FILE."),
    404: ("no stream 'line-4'.", "one that has answered a request", "See the list of streams."),
    409: ("stream line-3 has 8 named versions already.", "at most 8", "Take one of the names again."),
    413: ("2000 rows.", "at most 1024 in a request", "Send several requests."),
    415: ("the content type 'text/plain'.", f"{JSON} or {SAFETENSORS}", "Set Content-Type."),
    422: ("inputs that are empty.", "a list of rows of numbers, all of one shape", "Send at least one row."),
    429: ("16 requests of stream line-3 that wait.", "room in this stream's queue", "Wait for answers."),
    500: ("the server failed: RuntimeError.", "an answer", "See the server's log."),
    503: ("256 requests that wait.", "room in the server's queue", "Try again later."),
    504: ("no answer within 30 seconds.", "a shorter queue", "Try again; nothing was learned from this request."),
}
