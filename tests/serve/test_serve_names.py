"""A name belongs to one stream at a time: from its first answer until nothing of it is left."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from acclimate.serve.refused import Refused
from acclimate.serve.service import Service
from acclimate.serve.settings import Limits

from .alone import alone, sample
from .chain import manifest
from .served import images

INPUTS = [images(seed) for seed in range(4)]


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


VERBS: dict[str, Callable[[Service], Any]] = {
    "rollback": lambda service: service.rollback("s", 0),
    "reset": lambda service: service.reset("s"),
    "freeze": lambda service: service.freeze("s", True),
    "keep": lambda service: service.keep("s", "name"),
    "delete": lambda service: service.delete("s"),
}


def _settled(folder: Path) -> object:
    """Its files, once what is written in the background has been: the same ten looks in a row."""
    found, same = _files(folder), 0
    while same < 10:
        time.sleep(0.05)
        now = _files(folder)
        found, same = now, same + 1 if now == found else 0
    return found


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_for_a_deleted_stream_leaves_the_next_one_of_its_name_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """It has looked the stream up, and then somebody else was faster."""
    with alone(tmp_path, persist_every=1) as service:
        service.predict("s", INPUTS[0]).result(20)
        old = service.stream("s")
        service.delete("s")
        for x in INPUTS:
            service.predict("s", x).result(20)
        service.keep("s", "precious")
        before = _settled(tmp_path / "streams" / "s")
        with monkeypatch.context() as patched, pytest.raises(Refused) as refused:
            patched.setattr(service, "stream", lambda name: old)
            VERBS[verb](service)
        assert refused.value.status == 404
        assert _files(tmp_path / "streams" / "s") == before and service.stream("s") is not old
        assert service.rollback("s", 4).number == 5


def test_deletes_and_answers_side_by_side_fail_nobody(tmp_path: Path) -> None:
    failures, deleted, stop = list[BaseException](), list[int](), threading.Event()
    with alone(tmp_path, persist_every=1, workers=2) as service:

        def ask() -> None:
            while not stop.is_set():
                try:
                    service.predict("s", INPUTS[0]).result(20)
                except BaseException as error:
                    failures.append(error)

        def delete() -> None:
            while not stop.is_set():
                try:
                    deleted.append(service.delete("s").number)
                except Refused as refused:
                    if refused.status != 404:
                        failures.append(refused)
                    time.sleep(0.002)  # there is nothing to delete: let those who ask have the interpreter
                except BaseException as error:
                    failures.append(error)

        threads = [threading.Thread(target=each) for each in (ask, ask, delete, delete)]
        for thread in threads:
            thread.start()
        end = time.monotonic() + 60
        while len(deleted) < 8 and not failures and time.monotonic() < end:
            time.sleep(0.01)
        stop.set()
        for thread in threads:
            thread.join()
        assert not failures and len(deleted) >= 8
        version = service.predict("s", INPUTS[1]).result(20).version
        service.keep("s", "last")
    with alone(tmp_path) as service:
        assert service.stream("s").current.number == version + 1


def test_a_stream_made_anew_is_written_in_time(tmp_path: Path) -> None:
    with alone(tmp_path, persist_seconds=0.3, persist_every=100) as service:
        service.predict("s", INPUTS[0]).result(20)
        service.delete("s")
        service.predict("s", INPUTS[0]).result(20)
        end = time.monotonic() + 20
        while not (tmp_path / "streams" / "s" / "manifest.json").exists():
            assert time.monotonic() < end, "it is never written"
            time.sleep(0.02)
        assert manifest(tmp_path / "streams" / "s")["current"] == 1


def test_what_is_refused_makes_no_stream() -> None:
    def unreadable() -> Any:
        raise Refused(422, found="nonsense.", expected="a batch", do="Mend it.")

    with alone(limits=Limits(streams=2)) as service:
        for number in range(4):
            with pytest.raises(Refused) as refused:
                service.ask(f"junk-{number}", unreadable).future.result(20)
            assert refused.value.status == 422
            with pytest.raises((Refused, ValueError)):
                service.predict(f"wrong-{number}", INPUTS[0][:, :1]).result(20)
        assert service.streams() == []
        assert [service.predict(name, INPUTS[0]).result(20).version for name in ("a", "b")] == [0, 0]
        with pytest.raises(Refused, match="at most 2") as refused:
            service.predict("c", INPUTS[0])
        assert refused.value.status == 503
        service.delete("a")
        assert service.predict("c", INPUTS[0]).result(20).version == 0


def test_of_many_first_requests_only_as_many_make_a_stream_as_there_is_room_for() -> None:
    with alone(limits=Limits(streams=2), workers=2) as service:
        first = threading.Event()
        asked = [service.ask(f"s{number}", lambda: (first.wait(20), INPUTS[0])[1]) for number in range(4)]
        first.set()
        codes = []
        for each in asked:
            try:
                codes.append(each.future.result(20).version)
            except Refused as refused:
                codes.append(refused.status)
        assert sorted(codes) == [0, 0, 503, 503] and len(service.streams()) == 2


def test_the_name_of_the_source_is_kept(tmp_path: Path) -> None:
    """Version 0 has no file: it is what a fresh adaptation is."""
    with alone(tmp_path) as service:
        service.predict("s", INPUTS[0], learn=False).result(20)
        service.keep("s", "source")
    for number in (1, 2):
        with alone(tmp_path) as service:
            (kept,) = [each for each in service.stream("s").snapshots() if each["name"] == "source"]
            assert kept["version"] == 0
            assert service.rollback("s", 0).state.digest() == service.rollback("s", 0).state.digest()
            assert service.stream("s").current.number == 2 * number


def test_whoever_looks_waits_for_no_disk(tmp_path: Path) -> None:
    """As long as a line of the log takes, its stream is locked; all others, and health, go on."""
    from prometheus_client import generate_latest

    with alone(tmp_path) as service:
        service.predict("s", INPUTS[0]).result(20)
        stream, told = service.stream("s"), list[Any]()

        def look() -> None:
            told.extend([stream.status(), stream.snapshots(), generate_latest(service.metrics.registry)])
            told.extend(each.line() for each in service.streams())

        with stream.lock:
            thread = threading.Thread(target=look, daemon=True)
            thread.start()
            thread.join(20)
            assert len(told) == 4
        assert sample(service, "acclimate_state_bytes") == stream.bytes > 0
