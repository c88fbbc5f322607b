"""Write docs/openapi.json, the state server's description for machines: `python docs/make_openapi.py`."""

from __future__ import annotations

import json
from pathlib import Path

from torch import nn

from acclimate.serve.app import create_app
from acclimate.serve.settings import Settings

__all__ = ["document"]


def document() -> str:
    """What every state server of this version says under /openapi.json, whatever it serves."""
    app = create_app(Settings(method="source"), nn.Linear(1, 1))
    return json.dumps(app.openapi(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("openapi.json").write_text(document(), encoding="utf-8")
