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
from acclimate.compression.low_rank_int4 import LowRankInt4
from acclimate.compression.message import MessageCodec, Whole, encode_change, from_bytes, message_codec, to_bytes
from acclimate.compression.normalized import Normalized
from acclimate.compression.of_every import OfEvery
from acclimate.compression.offsets import Offsets
from acclimate.compression.one_bit import OneBit
from acclimate.compression.quantized import Quantized
from acclimate.compression.sparse import Sparse
from acclimate.compression.stub import Stub
from acclimate.compression.top_entries import TopEntries
from acclimate.compression.two_bit import TwoBit

__all__ = [
    "Bits",
    "Codec",
    "Exact",
    "Half",
    "Layout",
    "LowRank",
    "LowRankInt4",
    "MessageCodec",
    "Normalized",
    "OfEvery",
    "Offsets",
    "OneBit",
    "Packed",
    "Quantized",
    "Sparse",
    "Stub",
    "TopEntries",
    "TwoBit",
    "Whole",
    "codecs",
    "encode_change",
    "from_bytes",
    "low_rank_factors",
    "message_codec",
    "to_bytes",
]
