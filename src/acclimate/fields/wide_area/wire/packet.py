"""One rank's message as bytes: a header of 32, indices, values, and at times a digest of the weights."""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from acclimate.fields.wide_area.policy.conditions import Report
from acclimate.wire.faults import GarbledPacket

__all__ = ["HEADER", "Packet", "pack", "unpack"]

HEADER = 32
"""Bytes before the indices."""

_LAYOUT = struct.Struct("<4I3fI")
_DIGEST = struct.Struct("<Q")
_MAGIC = 0xDEC05C0D
_KINDS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_DENSE, _DIGESTED, _PROBE = 1 << 4, 1 << 5, 1 << 6
_KNOWN = 3 | _DENSE | _DIGESTED | _PROBE
_MOST = float(np.finfo(np.float32).max)
_UNKNOWN = Report(math.nan, math.nan, math.nan)


@dataclass(frozen=True, eq=False, slots=True)
class Packet:
    """What one rank sends for one iteration.

    Attributes:
        number: s, the iteration whose gradient it is of.
        indices: where the values belong, ascending, int64 `[k]`; None for dense values.
        values: `[k]`, or `[d]` where dense.
        report: what the sender measured, as float32, no larger than its largest number; NaN for what it does not know
            yet.
        digest: 64 bits of the sender's weights, on iterations with a parity check.
        wants_probe: whether the sender cannot tell its bandwidth from ordinary messages.
    """

    number: int
    indices: Tensor | None
    values: Tensor
    report: Report = _UNKNOWN
    digest: int | None = None
    wants_probe: bool = False


def pack(packet: Packet) -> Tensor:
    """A packet as uint8 `[32 + k beta / 8]` on the CPU, 8 more with a digest [S: layout of the specification, 8.1].

    Little-endian: magic, number, k, flags as uint32; compute, bandwidth, latency as float32; CRC-32 of everything else;
    indices int32; values. Float64 holds, too, for runs that are compared bit for bit.

    >>> raw = pack(Packet(7, torch.tensor([1, 4]), torch.tensor([0.5, -2.0])))
    >>> len(raw), unpack(raw, 5).values.tolist()
    (48, [0.5, -2.0])
    """
    flags = _KINDS.index(packet.values.dtype)
    flags |= _DENSE if packet.indices is None else 0
    flags |= _DIGESTED if packet.digest is not None else 0
    flags |= _PROBE if packet.wants_probe else 0
    parts = [] if packet.indices is None else [_bytes(packet.indices.to(torch.int32))]
    parts.append(_bytes(packet.values))
    if packet.digest is not None:
        parts.append(torch.frombuffer(bytearray(_DIGEST.pack(packet.digest)), dtype=torch.uint8))
    raw = torch.cat((torch.zeros(HEADER, dtype=torch.uint8), *parts))
    report = (min(each, _MOST) if each < math.inf else each for each in packet.report)
    head = (_MAGIC, packet.number & 0xFFFFFFFF, packet.values.numel(), flags, *report)
    raw.numpy()[:HEADER] = np.frombuffer(_LAYOUT.pack(*head, 0), np.uint8)
    raw.numpy()[HEADER - 4 : HEADER] = np.frombuffer(struct.pack("<I", _crc(raw)), np.uint8)
    return raw


def _crc(raw: Tensor, start: int = 0) -> int:
    return zlib.crc32(memoryview(raw.numpy()), start)  # pyright: ignore[reportArgumentType]


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().view(torch.uint8)


def unpack(raw: Tensor, count: int) -> Packet:
    """The packet in these bytes.

    Arguments:
        raw: uint8 `[...]` on the CPU, as they came.
        count: d, entries of the whole vector.

    Raises:
        GarbledPacket: bytes that are no packet for such a vector: another length, magic or flags, a wrong checksum,
            indices that do not ascend or lie outside, or numbers that are not finite. The message says which.
    """
    raw = raw.contiguous()
    if raw.dtype != torch.uint8 or raw.ndim != 1 or len(raw) < HEADER:
        raise GarbledPacket(f"found {raw.dtype} {list(raw.shape)}, expected uint8 of {HEADER} or more.")
    magic, number, kept, flags, *measured, check = _LAYOUT.unpack(raw[:HEADER].numpy().tobytes())
    if magic != _MAGIC:
        raise GarbledPacket(f"begins with {magic:#010x}, expected {_MAGIC:#010x}; this is no packet.")
    if flags & ~_KNOWN:
        raise GarbledPacket(f"has the flags {flags:#x}, of which {_KNOWN:#x} are known. Run one version on all ranks.")
    kind, dense, digested = _KINDS[flags & 3], bool(flags & _DENSE), bool(flags & _DIGESTED)
    if not 1 <= kept <= count or (dense and kept != count):
        raise GarbledPacket(f"holds {kept} {'dense ' if dense else ''}entries, expected those of a vector of {count}.")
    index = 0 if dense else 4 * kept
    length = HEADER + index + kept * kind.itemsize + (_DIGEST.size if digested else 0)
    if len(raw) != length:
        raise GarbledPacket(f"has {len(raw)} bytes, but its header says {length}: it was cut or joined.")
    found = _crc(raw[HEADER:], zlib.crc32(bytes(4), _crc(raw[: HEADER - 4])))
    if found != check:
        raise GarbledPacket(f"has the checksum {found:#010x}, expected {check:#010x}: it was damaged on its way.")
    body = raw[HEADER:]
    indices = None if dense else _indices(body[:index], count)
    values = body[index : index + kept * kind.itemsize].clone().view(kind)
    if not bool(values.isfinite().all()):
        raise GarbledPacket("holds values that are not finite.")
    digest = _DIGEST.unpack(body[-_DIGEST.size :].numpy().tobytes())[0] if digested else None
    return Packet(number, indices, values, Report(*measured), digest, bool(flags & _PROBE))


def _indices(raw: Tensor, count: int) -> Tensor:
    indices = raw.clone().view(torch.int32).long()
    if int(indices[0]) < 0 or int(indices[-1]) >= count or not bool((indices.diff() > 0).all()):
        raise GarbledPacket(f"holds indices that do not ascend within 0..{count - 1}.")
    return indices
