"""What `benchmarks.serving` compares with: the same model behind FastAPI, and nothing else.

`python -m benchmarks.bare_endpoint WEIGHTS PORT`.
"""

from __future__ import annotations

import json
import sys

import safetensors.torch
import torch
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from acclimate.models import load_model
from benchmarks.served_model import SPEC


def main() -> None:
    torch.set_num_threads(1)
    model = load_model(SPEC, sys.argv[1])
    app = FastAPI()

    def answer(body: bytes, kind: str) -> bytes:
        torch.set_num_threads(1)
        if kind == "application/json":
            x = torch.tensor(json.loads(body)["inputs"])
        else:
            x = safetensors.torch.load(body)["inputs"]
        with torch.no_grad():
            logits = model(x)
        return json.dumps({"logits": logits.tolist(), "labels": logits.argmax(1).tolist()}).encode()

    @app.post("/predict")
    async def predict(request: Request) -> Response:
        body = await request.body()
        found = await run_in_threadpool(answer, body, request.headers["content-type"])
        return Response(found, media_type="application/json")

    uvicorn.run(app, port=int(sys.argv[2]), log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
