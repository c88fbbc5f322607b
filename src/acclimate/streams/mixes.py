"""Any list of domains as one stream, and the settings in which domains mix."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from math import isfinite

import numpy as np
import torch
from numpy.typing import NDArray

from acclimate.streams.arrangements import (
    Arrangement,
    Member,
    alternating,
    by_domain,
    composed_at_random,
    crossed,
    drawn,
    piecewise,
    shuffled,
    switching,
)
from acclimate.streams.label_orders import correlated_order, sorted_order
from acclimate.streams.mixed import Domain, MixedStream
from acclimate.streams.moving import MOVING_PARTS, moving, moving_order
from acclimate.streams.segments import MIXED_SETTINGS, Segment, suggest
from acclimate.streams.stream import JSON

__all__ = ["MIX_ORDERS", "mix"]

_log = logging.getLogger(__name__)

_MOST_HELD_OUT = 5000
_HELD_OUT = 0.1
_CONCENTRATION = 0.1

Ints = NDArray[np.int64]


_ORDERS: dict[str, Callable[[Sequence[Member], int, int], Arrangement]] = {
    "mixed": lambda group, batch, seed: shuffled(group, batch),
    "cross-mix": lambda group, batch, seed: crossed(group, batch),
    "alternating": lambda group, batch, seed: alternating(group, batch),
    "switching": switching,
    "correlated": lambda group, batch, seed: by_domain(group, batch),
    "sorted": lambda group, batch, seed: by_domain(group, batch),
    "dynamic": piecewise,
    "random": composed_at_random,
    "potpourri": lambda group, batch, seed: shuffled(group, batch),
    "potpourri+": lambda group, batch, seed: shuffled(group, batch),
    "moving": lambda group, batch, seed: moving(group, batch),
}
_IN_TURN = ("correlated", "sorted")
_IN_CHUNKS = ("correlated", "moving")

MIX_ORDERS = MIXED_SETTINGS
"""The orders that `mix` knows."""


def mix(
    domains: Sequence[Domain],
    order: str = "mixed",
    *,
    size: int | None = None,
    batch_size: int = 64,
    seed: int = 0,
    concentration: float | None = None,
    source_share: float | None = None,
    held_out: float | None = None,
    classes: Sequence[str] = (),
    name: str = "",
    published: Sequence[int] = (),
) -> MixedStream:
    """Several domains as one stream, in which they mix.

    | order | what arrives |
    |---|---|
    | `mixed`, `potpourri`, `potpourri+` | everything pooled and shuffled once |
    | `cross-mix` | every batch holds all domains in equal shares, to one image |
    | `alternating` | batches of one domain and of `mixed` in turn; every image comes twice, full batches only |
    | `switching` | the same batches in random order |
    | `correlated` | one domain after the other, the labels of each in chunks, see `correlated_order` |
    | `sorted` | one domain after the other, each sorted by its labels |
    | `dynamic` | pieces of 1 to 10 batches, each of a random number of random domains |
    | `random` | each batch draws how many domains it has, which, and their shares |
    | `moving` | quarters of the domains: in turn with mixed labels, then sorted, then `mixed`, then correlated |

    Each domain draws from (seed, its name) alone, so that another domain changes neither its images nor their order.

    Arguments:
        domains: at most one of them marked as the source.
        size: take at most this many images of each domain, by the same rule as `open_stream`.
        concentration: above 0, of `correlated` and `moving`, by default 0.1; published are 0.01 to 0.1. Small is more
            correlated.
        source_share: of source images among all, 0 to below 1. By default the whole source set once; where it has too
            few images for the share, they come again, in another order, and a warning is logged.
        held_out: source images that are kept out of the stream to measure at its end what was forgotten, as a share of
            the source's, at most 5,000. They are images that no domain shows where there are such, as with `size`, and
            else are taken from the source's own. By default as many as the source has of the former, and 0.1 where
            there are fewer.
        classes: names, in the order of the model's outputs, where every domain has a label map.
        name: as in records.
        published: images of each domain in a published composition, see `Composition`; empty where there is none.

    Raises:
        ValueError: what cannot be mixed, an unknown order, or an option that the order has no use for.

    >>> from acclimate.streams import Segment, load_dataset
    >>> digits = load_dataset("digits")
    >>> fog, snow = (Domain(name, digits, Segment(name, 5)) for name in ("fog", "snow"))
    >>> stream = mix([fog, snow, Domain("clean", digits, is_source=True)], size=50, source_share=0.2, batch_size=25)
    >>> stream.composition().images
    (50, 50, 25)
    """
    _check(domains, order, batch_size, seed, concentration, source_share, held_out, published)
    concentration = _CONCENTRATION if concentration is None else concentration
    turn = sorted(range(len(domains)), key=lambda place: domains[place].is_source)
    ordered = [domains[place] for place in turn]
    group: list[Member] = []
    reserved: Ints | None = None
    for domain in ordered:
        positions = _subset(domain, size)
        if domain.is_source:
            others = sum(len(member) for member in group)
            positions, reserved = _reserve(positions, len(domain.pictures), held_out)
            positions = _at_share(positions, source_share, others, seed, domain.name)
        group.append(_ordered(domain, positions, order, seed, concentration))
    choices: dict[str, JSON] = {
        "setting": order,
        "subset": "all" if size is None else "numpy.random.default_rng(0).permutation(available)[:size]",
        "order": order,
        "seed": seed,
    }
    if order in _IN_CHUNKS:
        choices["concentration"] = concentration
    if ordered[-1].is_source:
        choices["source_share"] = "the whole set once" if source_share is None else source_share
    segments = (Segment(order, 0),)
    if order in _IN_TURN:
        segments = tuple(domain.segment for domain in ordered)
    elif order == "moving":
        segments = tuple(Segment(part, 0) for part in MOVING_PARTS)
    return MixedStream(
        name or order,
        ordered,
        group,
        _ORDERS[order](group, batch_size, seed),
        segments=segments,
        classes=next((domain.pictures.classes for domain in ordered if domain.labels is None), ()) or tuple(classes),
        batch_size=batch_size,
        seed=seed,
        choices=choices,
        held_out=None if reserved is None or not len(reserved) else torch.from_numpy(reserved),
        published=tuple(published[place] for place in turn) if published else (),
    )


def _subset(domain: Domain, size: int | None) -> Ints:
    """Positions of the images that the domain may show, by the rule of all streams."""
    available = len(domain.pictures)
    if size is None:
        return np.arange(available)
    if isinstance(size, bool) or size < 1:
        raise ValueError(f"size is {size}; expected 1 or more images of each domain.")
    return np.random.default_rng(0).permutation(available)[:size]


def _reserve(positions: Ints, available: int, share: float | None) -> tuple[Ints, Ints]:
    """What the source may show, and what is kept out of the stream: first of all images that no domain shows."""
    unused = np.setdiff1d(np.random.default_rng(0).permutation(available), positions, assume_unique=True)
    count = round((_HELD_OUT if share is None else share) * len(positions))
    if share is None:
        count = max(count, min(len(unused), len(positions)))
    count = min(_MOST_HELD_OUT, count or int(share != 0))
    own = np.random.default_rng(0).permutation(positions)[: max(0, min(count - len(unused), len(positions) - 1))]
    reserved = np.concatenate([unused[:count], own])
    return np.setdiff1d(positions, own, assume_unique=True), reserved.astype(np.int64)


def _at_share(positions: Ints, share: float | None, others: int, seed: int, name: str) -> Ints:
    """So many source images that they are this share of the stream."""
    if share is None:
        return positions
    count = round(share / (1 - share) * others)
    if count > len(positions):
        _log.warning(
            "A source share of %s takes %d images, but there are %d; they come again in another order.",
            share, count, len(positions),
        )  # fmt: skip
    random = drawn(seed, "source", name)
    rounds = [random.permutation(positions) for _ in range(-(-count // len(positions)))]
    return np.concatenate([*rounds, positions[:0]])[:count]


def _ordered(domain: Domain, positions: Ints, order: str, seed: int, concentration: float) -> Member:
    labels = domain.answers(torch.from_numpy(positions)).numpy()
    member = Member.shuffled(seed, domain.name, positions, labels)
    if order == "sorted":
        return member.taken(sorted_order(member.labels))
    if order == "correlated":
        random = drawn(seed, "correlated", domain.name)
        return member.taken(correlated_order(member.labels, concentration, random))
    if order == "moving":
        return member.taken(moving_order(member.labels, concentration, drawn(seed, "moving", domain.name)))
    return member


def _check(
    domains: Sequence[Domain],
    order: str,
    batch_size: int,
    seed: int,
    concentration: float | None,
    source_share: float | None,
    held_out: float | None,
    published: Sequence[int],
) -> None:
    if order not in MIX_ORDERS:
        raise ValueError(f"There is no order {order!r} of a mix. {suggest(order, MIX_ORDERS)}")
    if not domains:
        raise ValueError("There are no domains to mix; expected at least one.")
    if published and len(published) != len(domains):
        raise ValueError(f"published has {len(published)} numbers for {len(domains)} domains; expected one for each.")
    sources = sum(domain.is_source for domain in domains)
    if sources > 1:
        raise ValueError(f"{sources} domains are marked as the source; expected one at most.")
    if isinstance(batch_size, bool) or batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; expected 1 or more.")
    if isinstance(seed, bool) or seed < 0:
        raise ValueError(f"seed is {seed}; expected 0 or more.")
    if concentration is not None and order not in _IN_CHUNKS:
        raise ValueError(
            f"concentration={concentration} is for the order 'correlated' or 'moving', not for {order!r}; leave it out."
        )
    if concentration is not None and not (isfinite(concentration) and concentration > 0):
        raise ValueError(f"concentration is {concentration}; expected above 0, such as 0.1.")
    for option, share in (("source_share", source_share), ("held_out", held_out)):
        if share is None:
            continue
        if not sources:
            raise ValueError(
                f"{option}={share}, but no domain is marked as the source. Take the setting potpourri+, which "
                "has source images, or mark one of your own domains: Domain(..., is_source=True)."
            )
        if not 0 <= share < 1:
            raise ValueError(f"{option} is {share}; expected a share from 0 to below 1, such as 0.1.")
