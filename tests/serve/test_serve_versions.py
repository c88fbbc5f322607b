"""Every answer is that of the version it names; versions can be returned to; the log gives them again."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import httpx
import pytest
import torch
from safetensors.torch import save_file

from acclimate.serve.bodies import content_hash
from acclimate.serve.replay import input_folder, replay
from acclimate.serve.settings import Settings

from .chain import events, learned, same, states
from .served import CONTROL, Nursery, Server, images, network, overlay

CALLS = 500
INPUTS = [images(seed) for seed in range(20)]


def test_two_threads_on_two_streams_each_answer_that_of_its_version(nursery: Nursery, tmp_path: Path) -> None:
    """1,000 calls while updates are published behind them; each answer is computed again from its version alone."""
    told = {"state_dir": str(tmp_path / "state"), "workers": 2, "limits": {"kept": 2}, "persist_seconds": 60.0}
    answers: dict[str, list[tuple[int, int, torch.Tensor]]] = {"a": [], "b": []}
    with nursery.serving(tmp_path / "log", persist_every=1000, **told) as server:

        def ask(name: str) -> None:
            with httpx.Client(base_url=server.url, timeout=60) as client:
                mine = Server(server.process, server.url, server.log, client)
                for number in range(CALLS):
                    logits, headers = mine.predict(name, INPUTS[number % len(INPUTS)])
                    answers[name].append((number % len(INPUTS), int(headers["acclimate-version"]), logits))

        threads = [threading.Thread(target=ask, args=(name,)) for name in answers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        published = {name: server.settled(name)["version"] for name in answers}
    model, known = overlay(guard=None), dict[tuple[int, int], torch.Tensor]()
    for name, given in answers.items():
        versions = states(tmp_path / "state" / "streams" / name, INPUTS)
        assert len(given) == CALLS and published[name] == max(versions) > 1
        numbers = [version for _, version, _ in given]
        assert numbers == sorted(numbers)
        known.clear()
        for place, version, logits in given:
            if (place, version) not in known:
                known[place, version] = model.answer(versions[version], INPUTS[place]).logits.clone()
            assert same(logits, known[place, version]), (name, version)


def test_rollback_and_reset_are_exact_and_get_numbers_of_their_own(inline: Server, state_dir: Path) -> None:
    model = overlay(guard=None)
    for x in INPUTS[:3]:
        inline.predict("verbs", x)
    second, _ = learned(model, INPUTS[:2])
    assert inline.control("verbs", "rollback", {"version": 2}) == {"stream": "verbs", "version": 4, "frozen": False}
    logits, headers = inline.predict("verbs", INPUTS[5])
    assert headers["acclimate-version"] == "4" and same(logits, model.answer(second, INPUTS[5]).logits)
    assert inline.control("verbs", "reset")["version"] == 6
    logits, headers = inline.predict("verbs", INPUTS[6], update="false")
    assert headers["acclimate-version"] == "6" and same(logits, model.answer(model.first, INPUTS[6]).logits)
    assert inline.control("verbs", "freeze", {"frozen": True})["frozen"]
    _, headers = inline.predict("verbs", INPUTS[6])
    assert (headers["acclimate-version"], headers["acclimate-update"]) == ("6", "frozen")
    assert inline.status("verbs")["state"] == "frozen"
    assert not inline.control("verbs", "freeze", {"frozen": False})["frozen"]
    assert inline.control("verbs", "snapshots", {"name": "fresh"})["version"] == 6
    for x in INPUTS[:6]:
        inline.predict("verbs", x)
    found = inline.get("/v1/streams/verbs/snapshots")["snapshots"]
    assert [each["version"] for each in found if each["current"]] == [12]
    assert next(each for each in found if each["version"] == 6)["name"] == "fresh"
    gone = inline.client.post("/v1/streams/verbs/rollback", json={"version": 2}, headers=CONTROL)
    assert gone.status_code == 404 and "6" in gone.json()["detail"]["expected"]
    assert inline.control("verbs", "rollback", {"version": 6})["version"] == 13
    made = states(state_dir / "streams" / "verbs", INPUTS)
    assert sorted(made) == list(range(14)) and made[13].digest() == model.first.digest()


def test_deleting_a_stream_removes_what_is_ours_and_nothing_else(inline: Server, state_dir: Path) -> None:
    inline.predict("gone", INPUTS[0])
    inline.control("gone", "snapshots", {"name": "first"})
    folder = state_dir / "streams" / "gone"
    (folder / "notes.txt").write_text("somebody's own")
    assert inline.client.delete("/v1/streams/gone", headers=CONTROL).status_code == 200
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    assert inline.client.get("/v1/streams/gone").status_code == 404
    assert inline.predict("gone", INPUTS[0])[1]["acclimate-version"] == "0"


def test_requests_that_share_a_forward_say_so_and_can_be_replayed(nursery: Nursery, tmp_path: Path) -> None:
    told = {"update": "inline", "state_dir": str(tmp_path / "state"), "batch_window": 400.0}
    with nursery.serving(tmp_path / "log", **told) as server:
        found: dict[int, tuple[torch.Tensor, httpx.Headers]] = {}

        def ask(number: int) -> None:
            with httpx.Client(base_url=server.url, timeout=30) as client:
                found[number] = Server(server.process, server.url, server.log, client).predict("s", INPUTS[number])

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    folder = tmp_path / "state" / "streams" / "s"
    versions, model = states(folder, INPUTS), overlay(guard=None)
    by_request = {headers["acclimate-request"]: number for number, (_, headers) in found.items()}
    lines = events(folder, "answer")
    assert sum(len(line["requests"]) for line in lines) == 3 and len(lines) < 3
    for line in lines:
        x = torch.cat([INPUTS[by_request[request]] for request in line["requests"]])
        whole = model.step(versions[line["version"]], x).answered.logits
        for request, part in zip(line["requests"], whole.split(4), strict=True):
            logits, headers = found[by_request[request]]
            assert same(logits, part) and headers["acclimate-batch"] == line["requests"][0]


def test_replay_from_files_finds_what_was_changed(inline: Server, state_dir: Path, tmp_path: Path) -> None:
    for x in INPUTS[:3]:
        inline.predict("replayed", x)
        save_file({"inputs": x}, tmp_path / f"{content_hash(x)}.safetensors")
    folder, settings = state_dir / "streams" / "replayed", Settings(guard=None)
    steps = list(replay(network(), settings, folder, input_folder(tmp_path)))
    assert [step.version for step in steps] == [1, 2, 3] and all(step.logged == step.found for step in steps)
    first = next(replay(network(seed=1), settings, folder, input_folder(tmp_path)))
    with pytest.raises(ValueError, match="is another one now"):
        first.check()
    save_file({"inputs": INPUTS[4]}, tmp_path / f"{content_hash(INPUTS[1])}.safetensors")
    with pytest.raises(ValueError, match="does not hold that batch"):
        list(replay(network(), settings, folder, input_folder(tmp_path)))


def test_a_log_whose_beginning_is_gone_starts_from_a_state_file(inline: Server, state_dir: Path) -> None:
    for x in INPUTS[:4]:
        inline.predict("cut", x)
    inline.control("cut", "snapshots", {"name": "here"})
    folder = state_dir / "streams" / "cut"
    for x in INPUTS[4:6]:
        inline.predict("cut", x)
    log = folder / "audit.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    log.write_text("".join(f"{json.dumps(line)}\n" for line in lines if (line.get("before") or 0) >= 4))
    known = {content_hash(x): x for x in INPUTS}
    steps = list(replay(network(), Settings(guard=None), folder, known.__getitem__))
    assert [step.version for step in steps] == [5, 6]
    assert steps[-1].found == learned(overlay(guard=None), INPUTS[:6])[0].digest()
