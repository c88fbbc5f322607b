"""No answer is worse for what came before it: bad batches, other streams, requests that were given up."""

from __future__ import annotations

import threading
from pathlib import Path

import httpx
import pytest
import safetensors.torch
import torch
from torch import Tensor

from acclimate.serve.overlay import Overlay, Stepped
from acclimate.serve.packed import Packed
from acclimate.serve.refused import Refused

from .alone import alone
from .chain import events, learned, same
from .served import CONTENT, Nursery, Server, images, overlay

GOOD = [images(seed) for seed in range(3)]


def _bad(kind: str) -> Tensor:
    x = images(50)
    if kind == "identical":
        return x[:1].repeat(4, 1, 1, 1)
    return torch.full_like(x, {"nan": torch.nan, "infinite": torch.inf, "huge": 1e30, "black": 0.0, "flat": 0.5}[kind])


@pytest.mark.parametrize("kind", ["nan", "infinite", "huge", "black", "flat", "identical"])
def test_a_bad_batch_leaves_no_trace(inline: Server, kind: str) -> None:
    name, model = f"bad-{kind}", overlay(guard=None)
    inline.predict(name, GOOD[0])
    logits, headers = inline.predict(name, _bad(kind))
    assert headers["acclimate-held"] == "4" and headers["acclimate-version"] == "1"
    with model.adapted.source() as source, torch.no_grad():
        assert same(logits, source(_bad(kind)))
    after = [inline.predict(name, x)[0] for x in GOOD[1:]]
    expected = learned(model, GOOD)[1][1:]
    assert all(same(ours, theirs) for ours, theirs in zip(after, expected, strict=True))


def test_one_bad_row_of_eight_changes_nothing_for_the_other_seven(inline: Server) -> None:
    x = images(7, rows=8)
    broken = x.clone()
    broken[3] = torch.nan
    logits, headers = inline.predict("one-of-eight", broken)
    assert headers["acclimate-held"] == "1"
    rest = torch.cat([x[:3], x[4:]])
    state, (seven,) = learned(model := overlay(guard=None), [rest])
    assert same(torch.cat([logits[:3], logits[4:]]), seven)
    after, _ = inline.predict("one-of-eight", GOOD[0], update="false")
    assert same(after, model.answer(state, GOOD[0]).logits)


@pytest.mark.parametrize(
    "x",
    [torch.zeros(0, 3, 8, 8), torch.zeros(4, 3, 8, 8, dtype=torch.uint8), images(0).permute(0, 2, 3, 1).contiguous()],
    ids=["empty", "whole numbers", "channels last"],
)
def test_what_the_model_cannot_take_is_refused_and_leaves_no_trace(inline: Server, x: Tensor) -> None:
    name = f"refused-{x.dtype}-{len(x)}".replace(".", "-")
    inline.predict(name, GOOD[0])
    answer = inline.post(name, x)
    assert answer.status_code == 422
    assert set(answer.json()["detail"]) == {"found", "expected", "do"}
    logits, headers = inline.predict(name, GOOD[1])
    assert headers["acclimate-version"] == "1"
    assert same(logits, learned(overlay(guard=None), GOOD[:2])[1][1])


def test_poisoning_one_stream_leaves_the_other_as_if_alone(inline: Server, state_dir: Path) -> None:
    stop = threading.Event()

    def poison() -> None:
        with httpx.Client(base_url=inline.url, timeout=30) as client:
            number = 0
            while not stop.is_set():
                number += 1
                x = [images(0)[:1].repeat(4, 1, 1, 1) * 1e5, 50 * images(number) - 25, _bad("nan")][number % 3]
                server = Server(inline.process, inline.url, inline.log, client)
                server.post("poisoned", x)

    threads = [threading.Thread(target=poison) for _ in range(2)]
    for thread in threads:
        thread.start()
    batches = [images(seed) for seed in range(100, 140)]
    try:
        answers = [inline.predict("victim", x)[0] for x in batches]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert inline.status("poisoned")["batches"] > 5
    model = overlay(guard=None)
    state, alone = learned(model, batches)
    assert all(same(ours, theirs) for ours, theirs in zip(answers, alone, strict=True))
    assert events(state_dir / "streams" / "victim", "update")[-1]["state"] == state.digest()


def test_a_request_that_came_too_late_is_as_if_it_had_not_come(nursery: Nursery, tmp_path: Path) -> None:
    """One that is being answered when its time is over, and one that waits behind it."""
    with nursery.serving(tmp_path / "log", update="inline", slow=1.0, limits={"deadline": 1.5}) as server:
        with httpx.Client(base_url=server.url, timeout=30) as client:
            second = Server(server.process, server.url, server.log, client)
            found: list[httpx.Response] = []
            threads = [
                threading.Thread(target=lambda each=each: found.append(each.post("s", GOOD[0])))
                for each in (server, second)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        codes = sorted(answer.status_code for answer in found)
        assert codes[-1] == 504 and set(codes) <= {200, 504}
        late = next(answer for answer in found if answer.status_code == 504)
        assert "retry-after" in late.headers
        made = codes.count(200)
        while (answer := server.post("s", GOOD[1], update="false")).status_code == 504:
            pass  # behind the one that was given up while it was answered
        assert answer.headers["acclimate-version"] == str(made)
        logits = safetensors.torch.load(answer.content)["logits"]
        state, _ = learned(model := overlay(guard=None), GOOD[:1] * made)
        assert same(logits, model.answer(state, GOOD[1]).logits)


def test_a_client_that_hangs_up_does_no_harm(inline: Server) -> None:
    """In the middle of a body that would have been taken, of which nothing is told; and before its answer."""
    body = safetensors.torch.save({"inputs": GOOD[0]})
    head = {**CONTENT, "content-length": str(len(body))}
    for sent in (body[:10], body[:-1]):
        inline.raw("POST", "/v1/streams/hasty/predict", head, sent, listen=False)
    logits, headers = inline.predict("hasty", GOOD[0])
    assert headers["acclimate-version"] == "0"
    assert same(logits, learned(overlay(guard=None), GOOD[:1])[1][0])
    assert "ClientDisconnect" not in inline.log.read_text()
    inline.raw("POST", "/v1/streams/hasty/predict", head, body, listen=False)
    logits, headers = inline.predict("hasty", GOOD[1])
    taken = int(headers["acclimate-version"])  # 2 if it came that far: then it was learned whole
    assert taken in (1, 2)
    assert same(logits, learned(overlay(guard=None), [GOOD[0]] * taken + [GOOD[1]])[1][taken])


def test_one_request_of_several_in_a_forward_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Overlay.step

    def particular(model: Overlay, state: Packed, x: Tensor) -> Stepped:
        if bool((x == 7).any()):
            raise ValueError("a seven")
        return step(model, state, x)

    monkeypatch.setattr(Overlay, "step", particular)
    with alone(batch_window=200.0) as service:
        asked = [service.predict("s", x) for x in (GOOD[0], torch.full_like(GOOD[0], 7), GOOD[1])]
        with pytest.raises(Refused, match="a seven"):
            asked[1].result(20)
        answers = [asked[place].result(20) for place in (0, 2)]
        assert [answer.version for answer in answers] == [0, 1] and len({answer.batch for answer in answers}) == 2
    expected = learned(overlay(guard=None), GOOD[:2])[1]
    assert all(same(ours.logits, theirs) for ours, theirs in zip(answers, expected, strict=True))
