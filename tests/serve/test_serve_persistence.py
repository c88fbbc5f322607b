"""What was written outlives the process, whatever ends it, and damage is passed over and told."""

from __future__ import annotations

import json
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

import acclimate
from acclimate.serve.service import Service
from acclimate.serve.settings import Limits, Settings

from .chain import events, learned, manifest, same, states
from .served import CONTROL, Nursery, Server, images, network, overlay

INPUTS = [images(seed) for seed in range(10)]


def _service(folder: Path, seed: int = 0, **settings: object) -> Service:
    """Taken up as a server does when it starts."""
    told = {"guard": None, "update": "inline", "state_dir": folder} | settings
    service = Service(Settings(**told), network(seed))
    service.open()
    return service


def _end(service: Service) -> None:
    service.close()


@pytest.mark.parametrize("step", [1, 2, 3, *range(4, 25, 2)])
def test_a_crash_at_any_step_of_writing_loses_and_spoils_nothing(nursery: Nursery, tmp_path: Path, step: int) -> None:
    """The process ends within the step; whatever was acknowledged as written is there, and going on is exact."""
    folder = tmp_path / "state"
    process = nursery.launch(
        tmp_path / "log", update="inline", state_dir=str(folder), persist_every=1, die_at=step, limits={"kept": 1}
    )
    try:
        with httpx.Client(base_url=process.listening(), timeout=20) as client:
            server = Server(process, "", tmp_path / "log", client)
            while process.alive() and client.get("/readyz").status_code != 200:
                time.sleep(0.01)
            for x in INPUTS:
                server.post("s", x)
                time.sleep(0.03)
    except httpx.TransportError:
        pass
    assert process.wait() == 77, (tmp_path / "log").read_text()
    stream = folder / "streams" / "s"
    kept = manifest(stream)["current"] if (stream / "manifest.json").exists() else 0
    service = _service(folder)
    try:
        if not stream.exists():
            return
        found = service.stream("s")
        versions = states(stream, INPUTS)
        assert found.current.number >= kept and found.note is None
        taken_up = versions[found.current.number]
        assert found.current.state.digest() == taken_up.digest()
        assert found.next > max(versions)  # no number is given twice
        service.predict("s", INPUTS[0]).result(20)
        expected, _ = learned(overlay(guard=None), INPUTS[:1], taken_up)
        assert found.current.state.digest() == expected.digest()
    finally:
        _end(service)


def test_killed_and_started_again_it_goes_on_as_if_it_had_never_stopped(nursery: Nursery, tmp_path: Path) -> None:
    told = {"update": "inline", "state_dir": str(tmp_path / "state"), "persist_every": 1, "method": "rotta"}
    with nursery.serving(tmp_path / "first", **told) as server:
        for x in INPUTS[:3]:
            server.predict("s", x)
        server.control("s", "snapshots", {"name": "third"})  # written when it returns
        server.kill()
    with nursery.serving(tmp_path / "second", **told) as server:
        assert server.status("s")["version"] == 3
        rest = [server.predict("s", x)[0] for x in INPUTS[3:6]]
        assert server.control("s", "rollback", {"version": 3})["version"] == 7
    _, uninterrupted = learned(overlay(guard=None, method="rotta"), INPUTS[:6])
    assert all(same(ours, theirs) for ours, theirs in zip(rest, uninterrupted[3:], strict=True))
    states(tmp_path / "state" / "streams" / "s", INPUTS, method="rotta")


def test_sigterm_finishes_what_was_begun_writes_and_exits(nursery: Nursery, tmp_path: Path) -> None:
    told = {"update": "inline", "state_dir": str(tmp_path / "state"), "persist_seconds": 600.0, "persist_every": 1000}
    with nursery.serving(tmp_path / "log", slow=0.5, limits={"drain": 15.0}, **told) as server:
        assert server.client.get("/readyz").status_code == 200
        found: list[httpx.Response] = []
        thread = threading.Thread(target=lambda: found.append(server.post("s", INPUTS[0])))
        with httpx.Client(base_url=server.url, timeout=30) as other:
            other.get("/livez")  # a connection that was open before
            thread.start()
            while 'acclimate_waiting{queue="answers"} 0.0' in other.get("/metrics").text and not found:
                time.sleep(0.01)
            server.process.signal(signal.SIGTERM)
            while (ready := other.get("/readyz")).status_code == 200:
                time.sleep(0.005)
            assert ready.status_code == 503 and "about to end" in ready.json()["reason"]
            refused = Server(server.process, "", server.log, other).post("s", INPUTS[1])
            assert refused.status_code == 503 and "retry-after" in refused.headers
            assert other.get("/livez").status_code == 200
        thread.join()
        assert found[0].status_code == 200
        assert server.process.wait() == 0
    assert manifest(tmp_path / "state" / "streams" / "s")["current"] == 1


def test_a_second_server_is_kept_out_and_so_is_another_model(nursery: Nursery, tmp_path: Path) -> None:
    service = _service(tmp_path / "state")
    try:
        with pytest.raises(ValueError, match="belongs to a server that runs"):
            _service(tmp_path / "state")
    finally:
        _end(service)
    for word, settings in (("another method", {"method": "bn"}), ("another source model", {"seed": 1})):
        with pytest.raises(ValueError, match=word):
            _service(tmp_path / "state", **settings)
    process = nursery.launch(tmp_path / "log", state_dir=str(tmp_path / "state"), network=1)
    assert process.wait() == 1
    assert "another source model" in (tmp_path / "log").read_text()
    _end(_service(tmp_path / "state"))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three versions of a stream."""
    folder = tmp_path_factory.mktemp("written") / "state"
    service = _service(folder, persist_every=1)
    for x in INPUTS[:3]:
        service.predict("s", x).result(20)
        service.keep("s", f"after-{service.stream('s').current.number}")
    _end(service)
    return folder


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def _flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-5] ^= 4
    path.write_bytes(raw)


def _header(change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        raw = path.read_bytes()
        length = int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8 : 8 + length])
        change(header)
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])

    return damage


def _overlap(header: dict[str, object]) -> None:
    names = [name for name in header if name != "__metadata__"]
    header[names[0]]["data_offsets"] = header[names[1]]["data_offsets"]


def _bomb(path: Path) -> None:
    path.write_bytes((1 << 60).to_bytes(8, "little") + b"{}")


def _twice(path: Path) -> None:
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    entry = b'"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    text = b"{" + entry + b"," + entry + b"}"
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])


def _other_type(header: dict[str, object]) -> None:
    for name, entry in header.items():
        if name.startswith("weights."):
            entry["dtype"] = "I32"


DAMAGE: dict[str, Callable[[Path], None]] = {
    "truncated": _truncate,
    "empty": lambda path: path.write_bytes(b""),
    "a flipped bit": _flip,
    "an enormous header": _bomb,
    "overlapping tensors": _header(_overlap),
    "a name twice": _twice,
    "another type": _header(_other_type),
    "no metadata": _header(lambda header: header.pop("__metadata__")),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_version_is_passed_over_for_the_one_before(written: Path, tmp_path: Path, kind: str) -> None:
    folder = shutil.copytree(written, tmp_path / "state")
    path = folder / "streams" / "s" / "v000000000003.safetensors"
    DAMAGE[kind](path)
    raw = path.read_bytes()
    service = _service(folder)
    try:
        stream = service.stream("s")
        assert stream.current.number == 2 and "version 3 is damaged" in (stream.status()["note"] or "")
        assert stream.current.state.digest() == learned(overlay(guard=None), INPUTS[:2])[0].digest()
        assert service.metrics.registry.get_sample_value("acclimate_damaged_files_total") == 1
        service.predict("s", INPUTS[5]).result(20)
        assert stream.current.number == 4  # the number of the damaged one is not given again
        assert service.rollback("s", 1).number == 5
    finally:
        _end(service)
    assert path.read_bytes() == raw, "a damaged file is evidence"


def test_with_no_readable_version_a_stream_starts_from_the_source(written: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(written, tmp_path / "state")
    for path in (folder / "streams" / "s").glob("*.safetensors"):
        _truncate(path)
    service = _service(folder)
    stream = service.stream("s")
    assert stream.current.number == 0 and stream.next == 4 and "no version" in (stream.note or "")
    _end(service)


def test_a_damaged_manifest_freezes_the_stream_until_it_is_told_otherwise(written: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(written, tmp_path / "state")
    (folder / "streams" / "s" / "manifest.json").write_text('{"names": 3')
    (folder / "streams" / "lost+found").mkdir()
    service = _service(folder)
    stream = service.stream("s")
    assert stream.current.number == 3 and stream.frozen and "manifest" in (stream.note or "")
    assert [each.name for each in service.streams()] == ["s"]
    service.freeze("s", False)
    _end(service)
    again = _service(folder)
    assert not again.stream("s").frozen
    _end(again)


def test_what_is_written_is_an_adaptation_that_the_library_loads(written: Path) -> None:
    path = written / "streams" / "s" / "v000000000003.safetensors"
    adapted = acclimate.load(network(), path)
    state, _ = learned(model := overlay(guard=None), INPUTS[:3])
    with adapted.frozen():
        assert same(adapted(INPUTS[4]), model.answer(state, INPUTS[4]).logits)


def test_old_versions_and_old_parts_of_the_log_go(tmp_path: Path) -> None:
    limits = Limits(kept=2, audit_bytes=2000, audit_files=3)
    service = _service(tmp_path / "state", persist_every=1, limits=limits)
    folder = tmp_path / "state" / "streams" / "s"
    for number in range(12):
        service.predict("s", INPUTS[number % 10]).result(20)
        service.freeze("s", False)  # writes
    _end(service)
    assert sorted(path.name for path in folder.glob("v*")) == [f"v{n:012d}.safetensors" for n in (11, 12)]
    logs = sorted(path.name for path in folder.glob("audit*"))
    assert len(logs) == 3 and all((folder / name).stat().st_size <= 2000 for name in logs)
    assert events(folder, "update")[-1]["after"] == 12


def test_a_control_verb_needs_its_token(nursery: Nursery, inline: Server, tmp_path: Path) -> None:
    inline.predict("locked", INPUTS[0])
    verbs = [("rollback", {"version": 0}), ("reset", None), ("freeze", {"frozen": True}), ("snapshots", {"name": "n"})]
    for given, code in (({}, 401), ({"authorization": "Bearer another token"}, 401)):
        for verb, body in verbs:
            assert inline.client.post(f"/v1/streams/locked/{verb}", json=body, headers=given).status_code == code
        assert inline.client.delete("/v1/streams/locked", headers=given).status_code == code
    assert inline.status("locked")["version"] == 1
    with nursery.serving(tmp_path / "log", token=None) as server:
        server.predict("s", INPUTS[0])
        answer = server.client.post("/v1/streams/s/reset", headers=CONTROL)
        assert answer.status_code == 403 and "--token-file" in answer.json()["detail"]["do"]
