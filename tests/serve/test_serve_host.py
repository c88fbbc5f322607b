"""Whichever host is asked, a stream goes on from where the last one left it: all it is stands in the folder."""

from __future__ import annotations

import random
import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from acclimate.serve.host import StreamHost
from acclimate.serve.refused import Refused
from acclimate.serve.service import Service
from acclimate.serve.settings import Limits, Settings
from acclimate.serve.slots import slot

from .chain import events, learned, manifest, same, states
from .served import images, network, overlay

INPUTS = [images(seed) for seed in range(8)]


def _host(folder: Path, **settings: Any) -> StreamHost:
    told = {"guard": None, "state_dir": folder, "limits": Limits(deadline=0.2)} | settings
    return StreamHost(network(), Settings(**told))


def test_hosts_in_turn_answer_as_one(tmp_path: Path) -> None:
    hosts, chance = [_host(tmp_path, method="rotta") for _ in range(3)], random.Random(0)
    _, expected = learned(overlay(guard=None, method="rotta"), INPUTS)
    for number, x in enumerate(INPUTS):
        for stream in ("a", "b"):
            answer = chance.choice(hosts).answer(stream, x)
            assert same(answer.logits, expected[number]) and answer.version == number and answer.update == "done"
            assert manifest(tmp_path / "streams" / stream)["current"] == number + 1, "written before it is answered"
    states(tmp_path / "streams" / "a", INPUTS, method="rotta")


def test_a_host_at_hand_reads_nothing_again(tmp_path: Path) -> None:
    host = _host(tmp_path)
    for x in INPUTS[:3]:
        host.answer("s", x)
    assert not events(tmp_path / "streams" / "s", "open")
    _host(tmp_path).answer("s", INPUTS[3])
    assert host.answer("s", INPUTS[4]).version == 4
    assert [line["version"] for line in events(tmp_path / "streams" / "s", "open")] == [3, 4]


def test_what_learns_nothing_is_not_written(tmp_path: Path) -> None:
    host = _host(tmp_path)
    host.answer("s", INPUTS[0])
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "streams" / "s").glob("[vm]*")}
    assert host.answer("s", INPUTS[1], learn=False).update == "off"
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "streams" / "s").glob("[vm]*")}


def test_only_one_has_a_stream(tmp_path: Path) -> None:
    first, second = _host(tmp_path), _host(tmp_path)
    there, done = threading.Event(), threading.Event()

    def keep() -> None:
        with first.holding("line-2"):
            there.set()
            done.wait(20)

    thread = threading.Thread(target=keep)
    thread.start()
    assert there.wait(20)
    with pytest.raises(Refused, match="another worker has had") as refused:
        second.answer("line-2", INPUTS[0])
    assert refused.value.status == 503 and refused.value.retry_after
    assert slot("line-4") != slot("line-2") and second.answer("line-4", INPUTS[0]).version == 0
    done.set()
    thread.join()
    assert second.answer("line-2", INPUTS[0]).version == 0


def test_who_waits_for_a_stream_keeps_nobody_else_waiting(tmp_path: Path) -> None:
    first, second = _host(tmp_path), _host(tmp_path, limits=Limits(deadline=20.0))
    second.answer("line-4", INPUTS[0])
    with first.holding("line-2"):
        waiting = threading.Thread(target=second.answer, args=("line-2", INPUTS[0]))
        waiting.start()
        time.sleep(0.1)
        assert second.answer("line-4", INPUTS[1]).version == 1 and waiting.is_alive()
    waiting.join(20)
    assert not waiting.is_alive() and second.answer("line-2", INPUTS[1]).version == 1


def test_threads_share_a_host(tmp_path: Path) -> None:
    host, found = _host(tmp_path, method="rotta", limits=Limits(deadline=60.0)), dict[str, list[Any]]()

    def follow(name: str) -> None:
        found[name] = [host.answer(name, x) for x in INPUTS[:4]]

    threads = [threading.Thread(target=follow, args=(name,)) for name in ("line-2", "line-4", "line-5")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _, expected = learned(overlay(guard=None, method="rotta"), INPUTS[:4])
    for answers in found.values():
        assert all(same(answer.logits, logits) for answer, logits in zip(answers, expected, strict=True))


def test_a_server_and_hosts_take_turns_with_a_folder(tmp_path: Path) -> None:
    host = _host(tmp_path)
    service = Service(Settings(guard=None, update="inline", state_dir=tmp_path), network())
    service.open()
    service.predict("s", INPUTS[0]).result(20)
    with pytest.raises(Refused, match="ask that one"):
        host.answer("s", INPUTS[1])
    service.close()
    assert same(host.answer("s", INPUTS[1]).logits, learned(overlay(guard=None), INPUTS[:2])[1][1])
    with pytest.raises(ValueError, match="another method"):
        _host(tmp_path, method="bn")


def test_a_host_that_fails_to_write_leaves_a_gap_and_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that is killed between the log and the version's file: the number is not given again."""
    first, second = _host(tmp_path), _host(tmp_path)
    for host in (first, second):
        host.answer("s", INPUTS[0])
    with monkeypatch.context() as patched:
        patched.setattr("acclimate.serve.store.write_state", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            first.answer("s", INPUTS[1])
    for host in (second, first):
        host.answer("s", INPUTS[1], learn=False)
    assert same(second.answer("s", INPUTS[2]).logits, _after_two(INPUTS[2]))
    given = [line["after"] for line in events(tmp_path / "streams" / "s", "update")]
    assert given == [1, 2, 3, 4]
    states(tmp_path / "streams" / "s", INPUTS)


def _after_two(x: torch.Tensor) -> torch.Tensor:
    """The answer after the first batch was learned twice, once by each host, and nothing else."""
    return learned(overlay(guard=None), [INPUTS[0], INPUTS[0], x])[1][2]


def test_verbs_hold_for_every_host(tmp_path: Path) -> None:
    first, second = _host(tmp_path), _host(tmp_path)
    for x in INPUTS[:2]:
        first.answer("s", x)
    with second.holding("s") as stream:
        assert stream.rollback(1).number == 3
        stream.freeze(True)
    answer = first.answer("s", INPUTS[1])
    assert (answer.version, answer.update) == (3, "frozen")
    assert same(answer.logits, learned(overlay(guard=None), INPUTS[:2])[1][1])
    with first.holding("s") as stream:
        stream.end()
    assert not (tmp_path / "streams" / "s").exists()
    assert second.answer("s", INPUTS[0]).version == 0


def test_what_a_host_refuses_leaves_no_trace(tmp_path: Path) -> None:
    host = _host(tmp_path, limits=Limits(deadline=0.2, streams=1))
    host.answer("s", INPUTS[0])
    before = sorted(path.read_bytes() for path in (tmp_path / "streams" / "s").iterdir())
    for name, x, status in (("s", torch.rand(2, 7), 422), ("../s", INPUTS[0], 422), ("t", INPUTS[0], 503)):
        with pytest.raises(Refused) as refused:
            host.answer(name, x)
        assert refused.value.status == status
    assert sorted(path.read_bytes() for path in (tmp_path / "streams" / "s").iterdir()) == before
    assert host.answer("s", INPUTS[1]).version == 1
    with pytest.raises(ValueError, match="state_dir"):
        StreamHost(network(), Settings())


def test_the_example_of_the_page_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Path(__file__).parents[2] / "docs" / "scale-out.md"
    (example,) = re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, str(page), "exec"), {})
    assert manifest(tmp_path / "state" / "streams" / "line-3")["current"] == 2
