"""Which elements are largest in magnitude, without sorting them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from acclimate.compression.packing import bit_bytes, chunk_length, chunks, exceeding, pack_bits, positions

__all__ = ["BLOCK", "SAMPLE", "kept_at_most", "select"]

Selected = tuple[Tensor, list[int], list[Tensor]]

BLOCK = 1 << 16
"""Elements that one int16 can tell apart; counts are kept for each block."""

_SAMPLE_BITS = 16
SAMPLE = 1 << _SAMPLE_BITS
"""Magnitudes that a quantile is taken of."""

_SLACK = 1.05


def kept_at_most(count: int, keep: float, *, exact: bool) -> int:
    """The most that `select` marks of `count` elements: `floor(k N)`; `floor(1.05 k N)` where it samples."""
    exact = exact or count <= SAMPLE
    return min(count, _floor(count * keep * (1.0 if exact else _SLACK)))


def _floor(number: float) -> int:
    return math.floor(number + 1e-6)  # 0.29 * 100 is 28.999999999999996


def select(flat: Tensor, keep: float, take: Callable[[Tensor], Tensor], *, exact: bool) -> Selected:
    """Bits `[ceil(N / 8)]` of the fraction `keep` of largest magnitude, how many in each block, and what `take` makes
    of them, chunk by chunk.

    Never more than `kept_at_most`, never a zero, and fewer only where there are fewer nonzeros or by sampling noise.
    On accelerators the host reads counts once per chunk and pass, of which there are one to four.
    """
    count = flat.numel()
    exact = exact or count <= SAMPLE
    wanted, most = _floor(count * keep), kept_at_most(count, keep, exact=exact)
    if most == 0:
        bits = torch.zeros(bit_bytes(count), dtype=torch.uint8, device=flat.device)
        return bits, [0] * -(-count // BLOCK), []
    if wanted >= count:
        limit = flat.new_zeros(())
    elif exact:
        limit = _exact_limit(flat, wanted)
    else:
        limit = _kth(_sample(flat), SAMPLE - _floor(SAMPLE * keep))
    marked = _mark(flat, limit, 0, take)
    if sum(marked[1]) > most:
        limit = _exact_limit(flat, most)
        marked = _mark(flat, limit, 0, take)
    short = wanted - sum(marked[1])
    if short > (0 if exact else wanted * (_SLACK - 1)) and not limit <= 0:
        marked = _mark(flat, limit, short, take)
    return marked


def _mark(flat: Tensor, limit: Tensor, ties: int, take: Callable[[Tensor], Tensor]) -> Selected:
    """Mark `|x| > limit` and NaN, and the first `ties` of those that equal the limit; NaN is the largest limit."""
    hopeless = bool(limit.isnan())
    bits = torch.empty(bit_bytes(flat.numel()), dtype=torch.uint8, device=flat.device)
    ends = torch.arange(BLOCK, chunk_length(flat.device) + 1, BLOCK, device=flat.device)
    counts: list[int] = []
    taken: list[Tensor] = []
    for start, stop, magnitudes in _magnitudes(flat):
        flags = torch.zeros_like(magnitudes, dtype=torch.bool) if hopeless else exceeding(magnitudes, limit)
        if ties:
            equal = positions(magnitudes.isnan() if hopeless else magnitudes == limit)[:ties]
            flags[equal] = True
            ties -= len(equal)
        bits[start // 8 : bit_bytes(stop)] = pack_bits(flags)
        where = positions(flags)
        before = torch.searchsorted(where, ends[: -(-(stop - start) // BLOCK)])
        counts += before.diff(prepend=before.new_zeros(1)).tolist()
        taken.append(take(flat[start:stop].index_select(0, where)))
    return bits, counts, taken


def _magnitudes(flat: Tensor) -> Iterator[tuple[int, int, Tensor]]:
    """`|x|` chunk by chunk, each valid until the next."""
    work = flat.new_empty(min(flat.numel(), chunk_length(flat.device)))
    for start, stop in chunks(flat.numel(), flat.device):
        yield start, stop, torch.abs(flat[start:stop], out=work[: stop - start])


def _sample(flat: Tensor) -> Tensor:
    """Magnitudes `[SAMPLE]`, one from each of as many equal stretches, at places without a period.

    A fixed stride would look at one channel only wherever it is a multiple of their number.
    """
    count = flat.numel()
    stretch = torch.arange(SAMPLE, device=flat.device)
    within = stretch.mul(40503).bitwise_and_(SAMPLE - 1).mul_(count // SAMPLE).bitwise_right_shift_(_SAMPLE_BITS)
    return flat.index_select(0, stretch.mul_(count).bitwise_right_shift_(_SAMPLE_BITS).add_(within)).abs_()


def _kth(magnitudes: Tensor, rank: int) -> Tensor:
    """The `rank`-th smallest, from 1; zero for ranks below."""
    if rank < 1:
        return magnitudes.new_zeros(())
    return magnitudes.kthvalue(min(rank, magnitudes.numel())).values


def _exact_limit(flat: Tensor, kept: int) -> Tensor:
    """The largest magnitude that is not among the `kept` largest, `0 < kept < N`; zero if there are fewer nonzeros.

    A sample brackets it; only magnitudes within the bracket, a hundredth of all, are looked at again. In the rare case
    that the bracket misses it, all are, with temporaries of N elements.
    """
    count = flat.numel()
    if count <= SAMPLE:
        return _kth(flat.abs(), count - kept)
    share = kept / count
    reach = math.ceil(5 * math.sqrt(share * (1 - share) * SAMPLE)) + 2
    sample, rank = _sample(flat), round(SAMPLE * (1 - share))
    low = _kth(sample, rank - reach)
    high = _kth(sample, rank + reach) if rank + reach <= SAMPLE else low.new_full((), math.inf)
    above: list[Tensor] = []
    between: list[Tensor] = []
    for _, _, magnitudes in _magnitudes(flat):
        over = exceeding(magnitudes, high)
        above.append(over.count_nonzero())
        inside = exceeding(magnitudes, low).logical_xor_(over)
        between.append(magnitudes.index_select(0, positions(inside)))
    band = torch.cat(between)
    rest = kept - int(torch.stack(above).sum())
    if rest >= len(band) and rest >= 0 and not low > 0:
        return flat.new_zeros(())
    if 0 <= rest < len(band):
        return _kth(band, len(band) - rest)
    return _kth(flat.abs(), count - kept)
