"""Which records may stand in one table, and under which labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from acclimate.experiment.compute import SWITCHES
from acclimate.experiment.record import Record

__all__ = ["checked", "labelled"]


def _short(fingerprint: str) -> str:
    return fingerprint[:12]


def _seed_pair(a: Record, b: Record) -> tuple[str, str, str]:
    mine, theirs = a.header.stream["fingerprints"], b.header.stream["fingerprints"]
    shared = [seed for seed in mine if seed in theirs]
    if not shared:
        raise ValueError(
            f"{a.path.parent} has the seeds {', '.join(mine)} and {b.path.parent} has {', '.join(theirs)}: none in "
            "common, so nothing is paired. Run one of them again with --seeds of the other."
        )
    different = next((seed for seed in shared if mine[seed] != theirs[seed]), shared[0])
    return different, mine[different], theirs[different]


def _protocol_differences(a: Record, b: Record) -> str:
    mine, theirs = a.header.stream["protocol"], b.header.stream["protocol"]
    keys = [key for key in {**mine, **theirs} if mine.get(key) != theirs.get(key)]
    told = [f"{key}: {_brief(mine.get(key))} and {_brief(theirs.get(key))}" for key in keys]
    return "; ".join(told[:4]) or "the same protocol, other data"


def _brief(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def checked(records: Sequence[Record]) -> None:
    """ValueError unless all records saw the same streams with the same source model."""
    if not records:
        raise ValueError("there is nothing to compare. Pass the folder of at least one run.")
    for a, b in combinations(records, 2):
        seed, mine, theirs = _seed_pair(a, b)
        if mine != theirs:
            raise ValueError(
                f"{a.path.parent} and {b.path.parent} saw different streams (seed {seed}: fingerprints {_short(mine)} "
                f"and {_short(theirs)}; {_protocol_differences(a, b)}), so their errors cannot be compared. "
                "Repeat one of them with the stream options of the other."
            )
        ours, other = a.header.model, b.header.model
        if ours["fingerprint"] != other["fingerprint"]:
            raise ValueError(
                f"{a.path.parent} and {b.path.parent} adapt different source models ({ours['name']} "
                f"{_short(ours['fingerprint'])} and {other['name']} {_short(other['fingerprint'])}), so gains over "
                "the source mean different things. Repeat one of them with the model and weights of the other."
            )


def labelled(records: Sequence[Record]) -> Iterator[tuple[str, str, Record]]:
    """Label, method and record of everything that ran: the same settings twice count once, others get a suffix."""
    taken: dict[str, list[tuple[Any, str]]] = {}
    for record in records:
        for method, about in record.header.methods.items():
            given = about["config"], about.get("guard"), _source(about)
            settings = (*given, _order_that_counts(method, record), _clock(method, record))
            known = taken.setdefault(method, [])
            if any(settings == other for other, _ in known):
                continue
            label = f"{method} ({record.path.parent.name})" if known else method
            known.append((settings, label))
            yield label, method, record


def _clock(method: str, record: Record) -> tuple[float | None, list[str]]:
    """How fast batches came, where that can make a difference, and how it was computed."""
    switches = [name for name in SWITCHES if record.header.environment.get(name, "off") == "on"]
    return None if method == "source" else record.header.pace, switches


def _source(about: Mapping[str, Any]) -> dict[str, Any]:
    """How its source images were drawn, whatever the seed."""
    return {key: v for key, v in about.get("source", {}).items() if key not in ("in_stream", "fingerprints")}


def _order_that_counts(method: str, record: Record) -> str:
    return "either" if method == "source" else record.header.answer
