"""Runs a recipe until its input ends. One request at a time for each worker, so that three clients need both."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

from acclimate.serve.settings import Limits, Settings

from .sharded import SOURCE


def main(recipe: str, port: int, folder: str) -> None:
    settings = Settings(guard=None, state_dir=Path(folder), limits=Limits(body_bytes=20_000, stream_queue=1))
    if recipe == "ray_serve":
        import ray
        from ray import serve

        from acclimate.serve.recipes.ray_serve import application

        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(application((SOURCE, None), settings, ray_actor_options={"num_cpus": 0.5}))
        sys.stdin.read()
        serve.shutdown()
        ray.shutdown()
    else:
        from acclimate.serve.recipes.litserve import server

        made = server((SOURCE, None), settings)
        threading.Thread(target=_interrupt_at_the_end, daemon=True).start()
        made.run(host="127.0.0.1", port=port, num_api_servers=1, generate_client_file=False)


def _interrupt_at_the_end() -> None:
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
