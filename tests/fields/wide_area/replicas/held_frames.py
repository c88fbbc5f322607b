"""Latency inside TCP: the frames between two hosts of a `KernelNetwork` are held for a while in user space."""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import itertools
import multiprocessing
import select
import socket
import struct
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from multiprocessing.synchronize import Event

from acclimate.links.kernel import KernelNetwork

_ETHTOOL, _EVERYTHING, _OUTGOING = 0x8946, 3, 4
_OFFLOADS = (0x17, 0x1F, 0x24, 0x2C)  # checksums, and segments larger than a frame


def _whole_frames(device: str) -> None:
    """Let what a device sends be frames as they are on a wire."""
    asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for command in _OFFLOADS:
        value = ctypes.create_string_buffer(struct.pack("II", command, 0))
        fcntl.ioctl(asking, _ETHTOOL, struct.pack("16sQ16x", device.encode(), ctypes.addressof(value)))


def _forward(network: KernelNetwork, seconds: float, ready: Event) -> None:
    for host in range(2):
        network.enter(host)
        _whole_frames(network.device)
    network.enter_middle()
    subprocess.run(["ip", "link", "delete", "bridge"], check=True)
    ends: list[socket.socket] = []
    for name in ("host0", "host1"):
        _whole_frames(name)
        end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_EVERYTHING))
        end.bind((name, _EVERYTHING))
        end.setblocking(False)
        ends.append(end)
    held: list[tuple[float, int, int, bytes]] = []
    numbers = itertools.count()
    ready.set()
    while True:
        wait = max(0.0, held[0][0] - time.monotonic()) if held else 1.0
        for end in select.select(ends, [], [], wait)[0]:
            while True:
                try:
                    frame, origin = end.recvfrom(1 << 16)
                except BlockingIOError:
                    break
                if origin[2] != _OUTGOING:
                    heapq.heappush(held, (time.monotonic() + seconds, next(numbers), 1 - ends.index(end), frame))
        while held and held[0][0] <= time.monotonic():
            _, _, place, frame = heapq.heappop(held)
            ends[place].send(frame)


@contextmanager
def latency(network: KernelNetwork, seconds: float) -> Generator[None]:
    """Every frame between hosts 0 and 1 takes so long."""
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_forward, args=(network, seconds, ready), daemon=True)
    process.start()
    try:
        assert ready.wait(60)
        yield
    finally:
        process.kill()
        process.join()
