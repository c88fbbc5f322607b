"""Links that the kernel keeps slow, where it can be asked to."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time

import pytest

from acclimate.links.kernel import KernelNetwork
from acclimate.links.piecewise import Piecewise
from acclimate.links.traces import constant, step_drop

LACKS = KernelNetwork.lacks()
needs_namespaces = pytest.mark.skipif(LACKS is not None, reason=str(LACKS))

RECEIVE = """
import socket, sys, time
server = socket.create_server((sys.argv[1], 5000))
print("ready", flush=True)
connection, _ = server.accept()
first, count = None, 0
while data := connection.recv(1 << 16):
    first = first or time.monotonic()
    count += len(data)
print(count, time.monotonic() - first)
"""
SEND = """
import socket, sys
socket.create_connection((sys.argv[1], 5000)).sendall(bytes(int(sys.argv[2])))
"""


def sent(network: KernelNetwork, sender: int, receiver: int, count: int) -> float:
    """Seconds from the first to the last of so many bytes."""
    receive = [*network.command(receiver), sys.executable, "-c", RECEIVE, network.address(receiver)]
    send = [*network.command(sender), sys.executable, "-c", SEND, network.address(receiver), str(count)]
    with subprocess.Popen(receive, stdout=subprocess.PIPE, text=True) as receiving:
        assert receiving.stdout is not None
        assert receiving.stdout.readline() == "ready\n"
        subprocess.run(send, check=True)
        found, seconds = receiving.stdout.read().split()
    assert int(found) == count
    return float(seconds)


def namespaces() -> str:
    return subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout


@needs_namespaces
def test_what_is_sent_takes_as_long_as_the_bandwidth_says() -> None:
    """Nothing but the burst and a first frame comes sooner; a busy machine may be later."""
    with KernelNetwork(3, 4e6) as network:
        assert sent(network, 0, 1, 200_000) >= 0.97 * 8 * (200_000 - 3200 - 1514) / 4e6
        network.set_rate(8e6, host=2)
        fast = sent(network, 2, 0, 400_000)
        assert fast >= 0.97 * 8 * (400_000 - 3200 - 1514) / 8e6
        network.set_rate(1e9)
        assert sent(network, 2, 0, 400_000) < fast


@needs_namespaces
def test_a_link_follows_a_trace_and_is_as_before_afterwards() -> None:
    with KernelNetwork(2, 1e9) as network:
        with network.follow(step_drop(4e6, at=0.5, share=0.25), every=0.05):
            begun = time.monotonic()
            sent(network, 0, 1, 400_000)  # at most 0.55 s at 4 Mbit/s, the rest at 1
            assert time.monotonic() - begun >= 0.97 * (0.5 + 8 * (400_000 - 4714 - 0.55 * 4e6 / 8) / 1e6)
        assert sent(network, 0, 1, 400_000) < 0.5


@needs_namespaces
def test_nothing_is_left_behind() -> None:
    before = namespaces()
    with pytest.raises(ZeroDivisionError), KernelNetwork(2, 1e6) as network:
        assert network.command(0)[3] in namespaces()
        _ = 1 / 0
    assert namespaces() == before
    for call in (lambda: network.enter(0), lambda: network.command(0), lambda: network.set_rate(1e6)):
        with pytest.raises(RuntimeError, match="Use it inside"):
            call()


@needs_namespaces
def test_a_network_is_entered_once_and_anew() -> None:
    network = KernelNetwork(1, 1e6)
    for _ in range(2):
        with network:
            with pytest.raises(RuntimeError, match="Make another"), network:
                pass
            assert network.command(0)[3] in namespaces()
            network.set_rate(5e6)
            assert rate_of(network) == pytest.approx(5e6 * 1514 / 1448, rel=1e-2)
    with network:
        assert rate_of(network) == pytest.approx(1e6 * 1514 / 1448, rel=1e-2)


def rate_of(network: KernelNetwork, host: int = 0) -> float:
    """What the kernel says."""
    asked = [*network.command(host), "tc", "-j", "qdisc", "show", "dev", network.device]
    (found,) = json.loads(subprocess.run(asked, capture_output=True, text=True, check=True).stdout)
    return 8.0 * found["options"]["rate"]


@needs_namespaces
def test_each_host_gets_its_own_rate_back() -> None:
    with KernelNetwork(2, 1e6) as network:
        network.set_rate(8e6, host=1)
        with network.follow(constant(3e6)):
            assert rate_of(network, 0) == rate_of(network, 1) == pytest.approx(3e6 * 1514 / 1448, rel=1e-2)
        assert rate_of(network, 1) == pytest.approx(8 * rate_of(network, 0), rel=1e-2)


class _Broken(Piecewise):
    def bandwidth(self, at: float) -> float:
        if at > 0.02:
            raise ArithmeticError("no such time")
        return super().bandwidth(at)


@needs_namespaces
def test_an_error_of_a_trace_is_raised_at_the_end() -> None:
    with KernelNetwork(1, 1e6) as network:
        with (
            pytest.raises(ArithmeticError, match="no such time"),
            network.follow(_Broken([(math.inf, 2e6)]), every=0.05),
        ):
            time.sleep(0.2)
        assert rate_of(network) == pytest.approx(1e6 * 1514 / 1448, rel=1e-2)
        for rate in (float("nan"), -1.0, float("inf")):
            with pytest.raises(ValueError, match="rate"):
                network.set_rate(rate)
        for host in (-1, 1):
            with pytest.raises(ValueError, match="host"):
                network.set_rate(1e6, host)


@needs_namespaces
@pytest.mark.parametrize("after", [0.05, 0.15, 0.3, 0.6])
def test_an_interrupt_leaves_nothing_behind(after: float) -> None:
    """At any moment: while namespaces are made, are there, or go."""
    code = (
        "from acclimate.links.kernel import KernelNetwork\n"
        "import time\n"
        "print('begins', flush=True)\n"
        "with KernelNetwork(12, 1e6): time.sleep(0.1)\n"
    )
    before = namespaces()
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(after)
        process.send_signal(signal.SIGINT)
        process.wait(60)
    assert namespaces() == before


@pytest.mark.parametrize(
    ("hosts", "rate", "options", "told"),
    [
        (0, 1e6, {}, "hosts"), (251, 1e6, {}, "hosts"), (2, 0.0, {}, "rate"), (2, float("nan"), {}, "rate"),
        (2, 1e6, {"burst": 100}, "burst"), (2, 1e6, {"burst": 0}, "burst"), (2, 1e6, {"queue": 1.5}, "queue"),
    ],
)  # fmt: skip
def test_bad_arguments_are_told(hosts: int, rate: float, options: dict[str, int], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        KernelNetwork(hosts, rate, **options)


def test_what_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert "Install iproute2" in str(KernelNetwork.lacks())
    with pytest.raises(OSError, match="Install iproute2"), KernelNetwork(1, 1e6):
        pass
