"""Whatever is asked in whatever order, and whenever the process dies: the server against a plain list of states."""

from __future__ import annotations

import itertools
import random
import threading
import time
from pathlib import Path

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .chain import learned, manifest, same, states
from .served import Nursery, Server, images, overlay

INPUTS = [images(seed) for seed in range(8)]
VERBS = ("learn", "learn", "learn", "ask", "keep", "rollback", "reset", "freeze", "thaw")
RUNS = itertools.count()


@settings(max_examples=8, deadline=None, derandomize=True, database=None)
@given(st.lists(st.tuples(st.sampled_from(VERBS), st.integers(0, 7)), min_size=6, max_size=14))
def test_any_sequence_of_verbs_gives_what_a_plain_list_of_states_gives(
    inline: Server, sequence: list[tuple[str, int]]
) -> None:
    name, model = f"verbs-{next(RUNS)}", overlay(guard=None)
    inline.predict(name, INPUTS[0], update="false")
    made, number, frozen = {0: model.first}, 0, False
    for verb, choice in [*sequence, ("ask", 0)]:
        x, state, state_after = INPUTS[choice], made[number], None
        if verb == "learn" and not frozen:
            logits, headers = inline.predict(name, x)
            stepped = model.step(state, x)
            assert same(logits, stepped.answered.logits) and headers["acclimate-version"] == str(number)
            state_after = stepped.state
        elif verb in ("learn", "ask"):
            logits, headers = inline.predict(name, x, update=str(verb == "learn").lower())
            assert same(logits, model.answer(state, x).logits) and headers["acclimate-version"] == str(number)
        elif verb in ("freeze", "thaw"):
            frozen = verb == "freeze"
            assert inline.control(name, "freeze", {"frozen": frozen})["version"] == number
        elif verb == "keep":
            assert inline.control(name, "snapshots", {"name": f"n{choice}"})["version"] == number
        elif verb == "reset":
            state_after = model.first
            inline.control(name, "reset")
        else:
            kept = [each["version"] for each in inline.get(f"/v1/streams/{name}/snapshots")["snapshots"]]
            back = kept[choice % len(kept)]
            state_after = made[back]
            inline.control(name, "rollback", {"version": back})
        if state_after is not None:
            number = max(made) + 1
            made[number] = state_after
    assert inline.status(name)["version"] == number


def test_a_batch_of_one_is_a_batch(inline: Server) -> None:
    single = [x[:1] for x in INPUTS[:3]]
    answers = [inline.predict("single", x)[0] for x in single]
    assert all(same(a, b) for a, b in zip(answers, learned(overlay(guard=None), single)[1], strict=True))
    assert inline.status("single")["updates"] == 3


def test_only_this_machine_is_listened_to(inline: Server) -> None:
    assert inline.url.startswith("http://127.0.0.1:")


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 9))])
def test_killed_while_many_learn_nothing_written_is_lost_or_spoiled(
    nursery: Nursery, tmp_path: Path, seed: int
) -> None:
    """At a moment that nobody chose, with updates behind the answers and files being written."""
    told = {"state_dir": str(tmp_path / "state"), "persist_every": 1, "workers": 2, "method": "rotta"}
    names = ("a", "b", "c")

    def ask(url: str, name: str) -> None:
        with httpx.Client(base_url=url, timeout=30) as client:
            server = Server(process, url, tmp_path / "first", client)
            try:
                for number in itertools.count():
                    server.post(name, INPUTS[number % len(INPUTS)])
            except httpx.TransportError:
                pass

    with nursery.serving(tmp_path / "first", **told) as server:
        process = server.process
        threads = [threading.Thread(target=ask, args=(server.url, name)) for name in names]
        for thread in threads:
            thread.start()
        while "acclimate_persist_seconds_count 0.0" in server.metrics():
            time.sleep(0.01)
        time.sleep(random.Random(seed).uniform(0.1, 0.8))
        server.kill()
        for thread in threads:
            thread.join()
    folders = {name: tmp_path / "state" / "streams" / name for name in names}
    written = {n: manifest(f)["current"] if (f / "manifest.json").exists() else 0 for n, f in folders.items()}
    assert any(written.values())
    model = overlay(guard=None, method="rotta")
    with nursery.serving(tmp_path / "second", **told) as server:
        for name, folder in folders.items():
            status = server.status(name)
            assert status["version"] >= written[name] and status["note"] is None
            versions = states(folder, INPUTS, method="rotta")
            logits, _ = server.predict(name, INPUTS[0], update="false")
            assert same(logits, model.answer(versions[status["version"]], INPUTS[0]).logits)
