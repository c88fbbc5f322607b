"""A disk that is full: what cannot be told or kept is said to whoever asked, counted, and tried again."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from acclimate.serve.refused import Refused
from acclimate.serve.stream import Stream

from .alone import alone, full_for, sample
from .chain import events, learned, manifest, same, states
from .served import images, overlay

INPUTS = [images(seed) for seed in range(4)]
FAILURES = "acclimate_write_failures_total"


def _full(*_: Any, **__: Any) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("update", ["inline", "background"])
def test_what_cannot_be_logged_is_refused_and_has_taught_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, update: str
) -> None:
    """A client asks again after 503: the batch must not be learned twice."""
    with alone(tmp_path, update=update) as service:
        service.predict("s", INPUTS[0], learn=False).result(20)
        with monkeypatch.context() as patched:
            full_for(patched, "answer")
            with pytest.raises(Refused, match="audit log cannot be written") as refused:
                service.predict("s", INPUTS[1]).result(20)
        assert refused.value.status == 503 and refused.value.retry_after
        assert service.learning.lanes.settle(20) and sample(service, FAILURES) == 1
        assert service.stream("s").current.number == 0 and not events(tmp_path / "streams" / "s", "update")
        service.predict("s", INPUTS[1]).result(20)
        assert service.learning.lanes.settle(20) and service.stream("s").current.number == 1
    states(tmp_path / "streams" / "s", INPUTS)


@pytest.mark.parametrize("update", ["inline", "background"])
def test_an_update_that_cannot_be_logged_is_dropped_and_its_answer_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, update: str
) -> None:
    with alone(tmp_path, update=update) as service, monkeypatch.context() as patched:
        full_for(patched, "update", "dropped", "failed")
        answer = service.predict("s", INPUTS[0]).result(20)
        assert answer.update == ("dropped" if update == "inline" else "queued")
        assert same(answer.logits, learned(overlay(guard=None), INPUTS[:1])[1][0])
        assert service.learning.lanes.settle(20) and sample(service, FAILURES) == 1
        assert service.stream("s").current.number == 0 and service.stream("s").counts.dropped == 1
    assert len(events(tmp_path / "streams" / "s", "answer")) == 1


def test_a_verb_that_cannot_be_logged_is_refused_and_has_done_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with alone(tmp_path) as service:
        service.predict("s", INPUTS[0]).result(20)
        with monkeypatch.context() as patched:
            full_for(patched, "freeze")
            with pytest.raises(Refused, match="nothing has come of this request") as refused:
                service.freeze("s", True)
        assert refused.value.status == 503 and not service.stream("s").frozen and sample(service, FAILURES) == 1


def test_a_verb_that_cannot_be_written_says_so_and_is_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with alone(tmp_path, persist_seconds=0.2) as service:
        service.predict("s", INPUTS[0]).result(20)
        with monkeypatch.context() as patched:
            patched.setattr("acclimate.serve.store.atomic_write", _full)
            with pytest.raises(Refused, match="freeze holds, but not yet after a crash") as refused:
                service.freeze("s", True)
            assert refused.value.status == 500 and (sample(service, FAILURES) or 0) >= 1
        end, written = time.monotonic() + 20, tmp_path / "streams" / "s" / "manifest.json"
        while not written.exists() or not manifest(written.parent)["frozen"]:
            assert time.monotonic() < end, "it is not tried again"
            time.sleep(0.02)


def test_what_is_lost_in_the_end_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the process does not exit with 0."""
    with alone(tmp_path, persist_seconds=60) as service:
        service.predict("s", INPUTS[0]).result(20)
        monkeypatch.setattr("acclimate.serve.store.write_state", _full)
    assert isinstance(service.failure, OSError)
    assert "1 streams could not be written, s among them" in str(service.failure)


def test_who_writes_survives_what_nobody_foresaw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with alone(tmp_path, persist_seconds=0.1) as service:
        assert service._store is not None
        real, tried = service._store.save, list[str]()

        def save(stream: Stream) -> None:
            tried.append(stream.name)
            if len(tried) == 1:
                raise RuntimeError("a fault")
            real(stream)

        monkeypatch.setattr(service._store, "save", save)
        service.predict("s", INPUTS[0]).result(20)
        end = time.monotonic() + 20
        while not (tmp_path / "streams" / "s" / "manifest.json").exists():
            assert time.monotonic() < end, "nothing is written any more"
            time.sleep(0.02)


def test_a_stream_whose_files_stay_can_be_deleted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with alone(tmp_path) as service:
        service.predict("s", INPUTS[0]).result(20)
        service.keep("s", "first")
        with monkeypatch.context() as patched, pytest.raises(Refused, match="cannot be removed") as refused:
            patched.setattr(Path, "unlink", _full)
            service.delete("s")
        assert refused.value.status == 500
        assert service.delete("s").number == 1
        assert not (tmp_path / "streams" / "s").exists()
        assert service.predict("s", INPUTS[0]).result(20).version == 0
