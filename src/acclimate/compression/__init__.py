"""Tensors in fewer bytes: codecs with exact accounting, for saved activations, gradients and messages.

Each codec is a frozen dataclass of settings. `codec.encode(tensor)` gives a `Packed`: its `nbytes` are all it keeps
alive, its `decode()` makes a fresh tensor. `codec.size(shape, dtype)` says the bytes before there is a tensor.
"""

from acclimate.compression.bits import Bits
from acclimate.compression.codec import Codec, Packed, codecs
from acclimate.compression.exact import Exact
from acclimate.compression.half import Half
from acclimate.compression.layout import Layout
from acclimate.compression.low_rank import LowRank, low_rank_factors
from acclimate.compression.normalized import Normalized
from acclimate.compression.offsets import Offsets
from acclimate.compression.quantized import Quantized
from acclimate.compression.sparse import Sparse
from acclimate.compression.stub import Stub

__all__ = [
    "Bits",
    "Codec",
    "Exact",
    "Half",
    "Layout",
    "LowRank",
    "Normalized",
    "Offsets",
    "Packed",
    "Quantized",
    "Sparse",
    "Stub",
    "codecs",
    "low_rank_factors",
]
