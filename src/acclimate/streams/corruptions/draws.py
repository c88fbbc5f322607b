"""Counter-based random numbers: every draw is a pure function of a sample's key and a counter."""

import math
import zlib
from functools import lru_cache

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15
_FIRST_MULTIPLIER = 0xBF58476D1CE4E5B9
_SECOND_MULTIPLIER = 0x94D049BB133111EB
_HALF_AS_INTEGER = 0x3F000000
_STEPS_PER_OCTAVE = 512
_MANTISSA_SHIFT = 23 - int(math.log2(_STEPS_PER_OCTAVE))


def _signed(value: int) -> int:
    """The int64 with the same 64 bits as the unsigned `value`."""
    value &= 0xFFFFFFFFFFFFFFFF
    return value - (1 << 64) if value >= 1 << 63 else value


def _fold(state: Tensor, shift: int) -> Tensor:
    """In place: state ^= state >> shift, a logical shift (torch only has the arithmetic one)."""
    return state.bitwise_xor_((state >> shift).bitwise_and_((1 << (64 - shift)) - 1))


def mix(state: Tensor) -> Tensor:
    r"""In place: the output function of SplitMix64, a bijection of 64 bits (int64 tensor) that passes BigCrush.

    ``z ^= z >> 30; z *= 0xBF58476D1CE4E5B9; z ^= z >> 27; z *= 0x94D049BB133111EB; z ^= z >> 31``

    Source: Steele, Lea and Flood, *Fast splittable pseudorandom number generators*, OOPSLA 2014.
    """
    _fold(state, 30).mul_(_signed(_FIRST_MULTIPLIER))
    _fold(state, 27).mul_(_signed(_SECOND_MULTIPLIER))
    return _fold(state, 31)


@lru_cache(maxsize=8)
def _normal_table(device: torch.device) -> tuple[Tensor, Tensor]:
    """Values and slopes of -quantile(u), u = f / 2^32, at `_STEPS_PER_OCTAVE` values of f in every octave.

    Cut like the floats f themselves (exponent, then leading mantissa bits), from 1/2 to 2^31: so the tail
    down to u = 2^-33 is as finely resolved as the middle (error of the quantile below 1e-6 throughout).
    """
    octave = torch.arange(-1, 32, dtype=torch.float64, device="cpu")[:, None]
    step = torch.arange(_STEPS_PER_OCTAVE, dtype=torch.float64, device="cpu") / _STEPS_PER_OCTAVE
    tail = (torch.exp2(octave - 32) * (1 + step)).flatten().clamp(max=0.5)
    quantile = -torch.special.ndtri(tail)
    slope = torch.diff(quantile, append=quantile[-1:])
    return quantile.float().to(device), slope.float().to(device)


class Draws:
    r"""The random numbers of N samples, each sample with a SplitMix64 stream of its own.

    Word k of stream s of the sample with key K is ``mix(mix(K + s * golden) + (k + 1) * golden)``: no state, no
    order, so a sample draws the same numbers alone, in any batch and at any place in it. After the integer
    hash only operations which IEEE 754 rounds exactly are used, so this holds bit for bit on vector
    units, whose transcendental functions differ between the bulk of an array and its tail.

    Arguments:
        keys: int64 tensor [N] of well-mixed keys; see :meth:`keyed`.

    Example:
        >>> draws = Draws.keyed(torch.tensor([3, 1, 4]), seed=0, label="fog-5")
        >>> draws.normal(0, 32, 32).shape
        torch.Size([3, 32, 32])
    """

    def __init__(self, keys: Tensor) -> None:
        self.keys = keys

    @classmethod
    def keyed(cls, index: Tensor, seed: int, label: str) -> "Draws":
        """One key per sample from its `index` (int64 [N], any values), `seed` (any int) and a `label`."""
        key = torch.full_like(index, _signed(seed))
        for part in (zlib.crc32(label.encode()), index):
            key = mix(key.add_(_signed(_GOLDEN))).bitwise_xor_(part)
        return cls(mix(key.add_(_signed(_GOLDEN))))

    def words(self, stream: int, *shape: int) -> Tensor:
        """Random 32-bit words as int32 [N, *shape]; `stream` (>= 0) tells independent uses apart."""
        count = math.prod(shape)
        start = mix(self.keys + _signed(stream * _GOLDEN))
        steps = torch.arange(1, (count + 1) // 2 + 1, dtype=torch.int64, device=self.keys.device)
        pairs = mix(start[:, None] + steps.mul_(_signed(_GOLDEN)))
        return pairs.view(torch.int32)[:, :count].reshape(-1, *shape)

    def uniform(self, stream: int, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Float32 [N, *shape], uniform on the 2^24 multiples of (high - low) / 2^24 in [low, high)."""
        unit = (self.words(stream, *shape) >> 8).float().mul_(2.0**-24).add_(0.5)
        return unit if (low, high) == (0.0, 1.0) else unit.mul_(high - low).add_(low)

    def normal(self, stream: int, *shape: int) -> Tensor:
        """Float32 [N, *shape], standard normal by inversion: sign, then quantile of a 31-bit tail area."""
        words = self.words(stream, *shape)
        sign = words >> 31
        size = (words ^ sign).float().add_(0.5)
        cell = size.view(torch.int32) - _HALF_AS_INTEGER
        value, slope = _normal_table(self.keys.device)
        place = (cell >> _MANTISSA_SHIFT).flatten()
        within = cell.bitwise_and_((1 << _MANTISSA_SHIFT) - 1).float().mul_(2.0**-_MANTISSA_SHIFT)
        magnitude = within.mul_(slope.index_select(0, place).view(words.shape))
        magnitude.add_(value.index_select(0, place).view(words.shape))
        return magnitude.mul_(sign.mul_(2).add_(1))

    def integers(self, stream: int, *shape: int, low: int, high: int) -> Tensor:
        """Int64 [N, *shape], uniform on low..high - 1 (multiply-shift; bias below (high - low) / 2^32)."""
        word = self.words(stream, *shape).long().add_(1 << 31)
        return word.mul_(high - low).bitwise_right_shift_(32).add_(low)
