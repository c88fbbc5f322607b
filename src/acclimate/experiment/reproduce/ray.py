"""The same trials over a Ray cluster. Every node needs this package, the model and the data at the same paths."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

from acclimate.experiment.reproduce.schedule import Done, attempt
from acclimate.experiment.reproduce.site import Site
from acclimate.experiment.reproduce.trial import Trial
from acclimate.streams.shared import shared_folder

__all__ = ["Ray"]

_WAIT = 1.0
"""Seconds between looks at the keyboard."""


class Ray:
    """A crew on the cluster at `address`, or on a Ray of this machine's own for so many jobs at once.

    ImportError where Ray is missing.

    Each trial asks for as many processors as the site has threads, and on an accelerator for one of those.
    """

    def __init__(self, address: str | None = None, jobs: int | None = None) -> None:
        try:
            self._ray: Any = import_module("ray")
        except ImportError as error:
            raise ImportError('--ray needs the package ray: pip install "acclimate[ray]".') from error
        self._address = address
        self._jobs = jobs

    def work(self, trials: Sequence[Trial], site: Site) -> Iterator[Done]:
        ray = self._ray
        variables = {"ACCLIMATE_SHARED": str(shared_folder().absolute()), "OMP_NUM_THREADS": str(site.threads)}
        if "ACCLIMATE_CACHE" in os.environ:
            variables["ACCLIMATE_CACHE"] = os.environ["ACCLIMATE_CACHE"]
        options: dict[str, Any] = {"address": self._address}
        if self._address is None:
            options = {"include_dashboard": False, "num_cpus": self._jobs and self._jobs * site.threads}
        try:
            ray.init(runtime_env={"env_vars": variables}, log_to_driver=False, logging_level="error", **options)
        except (ConnectionError, RuntimeError) as error:
            raise ValueError(f"there is no Ray cluster at {self._address!r}: {error}") from error
        try:
            remote = ray.remote(num_cpus=site.threads, num_gpus=int(not site.device.startswith("cpu")))(attempt)
            waiting: dict[Any, Trial] = {remote.remote(trial, site): trial for trial in trials}
            while waiting:
                finished, _ = ray.wait(list(waiting), timeout=_WAIT)
                for reference in finished:
                    trial = waiting.pop(reference)
                    try:
                        yield trial, ray.get(reference)
                    except ray.exceptions.RayError as error:
                        yield trial, " ".join(str(error).split())
        finally:
            ray.shutdown()
