"""Links that the kernel keeps slow: a network namespace and a token bucket for each host."""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import subprocess
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from acclimate.core.config import between, positive, whole
from acclimate.links.trace import Trace

__all__ = ["KernelNetwork"]

_PAYLOAD = 1448 / 1514
"""Of a full frame the rest is headers, of Ethernet, IPv4 and TCP with times."""

_NEWNET = 0x40000000
_MOST = 250
_LEAST, _BURST = 8000.0, 3200


class KernelNetwork:
    """Hosts on one machine that talk TCP through links with the bandwidth asked for [S: 10.2].

    Each host is a network namespace with a device `eth0`, whose token bucket (tbf) lets so many bits out in a second;
    what comes in is as fast as whoever sent it. A bridge in one more namespace connects them, without latency: put a
    `LateTransport` around a transport, or have the kernel's netem at hand. The machine's own network is not touched.
    Programs start by `command`, or enter by themselves. Everything is removed at the end of the `with` block, and
    processes in it lose their network then.

    Arguments:
        hosts: n, 1 to 250.
        rate: of each host's link, bit/s above 0 of what programs send in full frames; headers come on top of it.
        burst: bytes that may go at once after a pause, 1514 or more; by default what takes a millisecond, 3200 or more.
        queue: bytes that wait at a link at most; what comes beyond is dropped, and sent again by TCP.

    Raises:
        ValueError: an argument out of range, or no such host.
        RuntimeError: outside of the `with` block, or inside of another one.
        OSError: no Linux, no iproute2, or no right to (CAP_NET_ADMIN and CAP_SYS_ADMIN, as root has); with what the
            tools said.

    What a killed process leaves behind is listed by `ip netns` as acclimate-..., and goes by `ip netns delete NAME`.

    >>> KernelNetwork(0, 1e6)
    Traceback (most recent call last):
    ...
    ValueError: hosts must be a whole number of at least 1, found 0.
    """

    device = "eth0"
    """Of each host, for gloo's `GLOO_SOCKET_IFNAME`."""

    def __init__(self, hosts: int, rate: float, *, burst: int | None = None, queue: int = 8_000_000) -> None:
        whole(1, hosts=hosts)
        between(1, _MOST, hosts=hosts)
        positive(rate=rate)
        whole(1514, burst=_BURST if burst is None else burst, queue=queue)
        self.hosts, self._rate, self._burst, self._queue = hosts, rate, burst, queue
        self._rates: list[float] = []
        self._name = f"acclimate-{secrets.token_hex(3)}"

    @staticmethod
    def lacks() -> str | None:
        """Why there can be none here, or None where there can."""
        missing = [tool for tool in ("ip", "tc") if shutil.which(tool) is None]
        if missing:
            return f"{' and '.join(missing)} of iproute2 cannot be found. Install iproute2, on Linux."
        try:
            with KernelNetwork(1, 1e6):
                return None
        except OSError as error:
            return str(error)

    def __enter__(self) -> KernelNetwork:
        if self._rates:
            raise RuntimeError("this network is there already. Make another KernelNetwork for another one.")
        self._rates = [self._rate] * self.hosts
        try:
            _run("ip", "netns", "add", self._name)
            _run("ip", "-n", self._name, "link", "add", "bridge", "up", "type", "bridge")
            for host in range(self.hosts):
                self._join(host)
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._remove()

    def _join(self, host: int) -> None:
        name, peer = self._names(host), f"host{host}"
        _run("ip", "netns", "add", name)
        _run("ip", "-n", name, "link", "add", self.device, "type", "veth", "peer", "name", peer, "netns", self._name)
        _run("ip", "-n", self._name, "link", "set", peer, "master", "bridge", "up")
        _run("ip", "-n", name, "address", "add", f"{self.address(host)}/24", "dev", self.device)
        _run("ip", "-n", name, "link", "set", "lo", "up")
        _run("ip", "-n", name, "link", "set", self.device, "up")
        self._limit("add", host)

    def _remove(self) -> None:
        """All of it, even if somebody presses Ctrl-C meanwhile."""
        names = [self._name, *map(self._names, range(self.hosts))]
        stopped: BaseException | None = None
        while names:
            try:
                if _place(names[-1]).exists():  # an interrupt or error while this was made leaves some unmade
                    _run("ip", "netns", "delete", names[-1])
                names.pop()
            except KeyboardInterrupt as pressed:
                stopped = pressed
            except OSError as error:
                stopped = stopped or error
                names.pop()
        self._rates = []
        if stopped is not None:
            raise stopped

    def _names(self, host: int) -> str:
        return f"{self._name}-{host}"

    def _checked(self, host: int) -> int:
        whole(0, host=host)
        if host >= self.hosts:
            raise ValueError(f"found host {host}, expected one of the {self.hosts} from 0 on.")
        if not self._rates:
            raise RuntimeError("this network is not there. Use it inside `with KernelNetwork(...) as network:`.")
        return host

    def address(self, host: int) -> str:
        """IPv4."""
        return f"10.77.0.{self._checked(host) + 1}"

    def command(self, host: int) -> list[str]:
        """What to put before a program's arguments so that it runs there."""
        return ["ip", "netns", "exec", self._names(self._checked(host))]

    def enter(self, host: int) -> None:
        """Move the calling thread there for good, and threads it starts from now on. OSError where that may not be."""
        self._move(self._names(self._checked(host)))

    def enter_middle(self) -> None:
        """The same, to where the bridge is, whose ports are host0, host1, ...: to watch or to hold what passes."""
        self._checked(0)
        self._move(self._name)

    @staticmethod
    def _move(name: str) -> None:
        with _place(name).open() as file:
            if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), _NEWNET) != 0:
                number = ctypes.get_errno()
                raise OSError(number, f"network namespace {name} may not be entered: {os.strerror(number)}")

    def set_rate(self, rate: float, host: int | None = None) -> None:
        """Give a host's link, or all, another bandwidth from now on, 0 to 1e12 bit/s; less than 8000 counts as 8000.

        The packet that waits first still goes when it would have gone, 1.6 s later at worst, and TCP takes its time to
        believe in a link that was down.
        """
        between(0, 1e12, rate=rate)
        for each in range(self.hosts) if host is None else [host]:
            self._rates[self._checked(each)] = rate
            self._limit("change", each)

    @contextmanager
    def follow(self, trace: Trace, host: int | None = None, *, every: float = 0.1) -> Generator[None]:
        """Let a host's link, or all, have a trace's bandwidth in this block, looked at every so many seconds, and then
        what each had before. An error on the way is raised at the end of the block."""
        positive(every=every)
        hosts = range(self.hosts) if host is None else [self._checked(host)]
        before, ended, failed = list(self._rates), threading.Event(), list[Exception]()

        def follow(at: float) -> None:
            wanted = trace.bandwidth(at)
            for each in hosts:
                if wanted != self._rates[each]:
                    self.set_rate(wanted, each)

        def run() -> None:
            try:
                while not ended.wait(every):
                    follow(time.monotonic() - begun)
            except Exception as error:
                failed.append(error)

        thread = threading.Thread(target=run, name="bandwidth", daemon=True)
        try:
            follow(0.0)
            begun = time.monotonic()
            thread.start()
            yield
        finally:
            ended.set()
            if thread.ident is not None:
                thread.join()
            for each in hosts:
                self.set_rate(before[each], each)
        if failed:
            raise failed[0]

    def _limit(self, verb: str, host: int) -> None:
        rate = round(max(_LEAST, self._rates[host]) / _PAYLOAD)
        burst = self._burst or max(_BURST, rate // 8 // 1000)
        sizes = ["rate", f"{rate}bit", "burst", f"{burst}b", "limit", f"{self._queue}b"]
        _run("tc", "-n", self._names(host), "qdisc", verb, "dev", self.device, "root", "tbf", *sizes)


def _place(name: str) -> Path:
    """Of a namespace, by iproute2's custom."""
    return Path("/run/netns") / name


def _run(*command: str) -> None:
    """OSError with what the tool said where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, start_new_session=True)
    except FileNotFoundError as error:
        raise OSError(f"{command[0]} cannot be found. Install iproute2, on Linux.") from error
    if done.returncode:
        told = " ".join(done.stderr.split())
        raise OSError(
            f"`{' '.join(command)}` failed: {told} Networks of the kernel need root, and a kernel with network "
            "namespaces, veth, bridge and tbf; `EmulatedTransport` needs nothing."
        )
