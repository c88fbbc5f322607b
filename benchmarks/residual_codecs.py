"""What compressing keys and values costs, as a share of the block of PixArt they are exchanged in.

`python -m benchmarks.residual_codecs [CODEC ...] [--tokens 1024] [--devices 4] [--rounds 15]`: one device's share of
the tokens, 1152 channels. In turn, in one run: the forward of diffusers' `BasicTransformerBlock` at PixArt's shapes, as
if the device attended to its own tokens alone, a lower bound; encoding a change on a base, with the owner's new base;
decoding it onto a receiver's. The share is `2 (encode + decode)` over the block, for keys and values, and in the last
column `2 (encode + (W - 1) decode)`.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch
from diffusers.models.attention import BasicTransformerBlock
from rich.console import Console
from rich.table import Table
from torch import Tensor

import acclimate
from acclimate.compression import MessageCodec, encode_change, from_bytes, message_codec
from benchmarks.timing import in_turn

CHANNELS, HEADS, TEXT = 1152, 16, 120
CODECS = ("whole", "one_bit", "two_bit", "low_rank:8", "low_rank_int4:32", "of_every:8", "top_entries:0.05")


def block(tokens: int, dtype: torch.dtype) -> Callable[[], object]:
    """A forward of one block on the device's own tokens."""
    net = BasicTransformerBlock(
        CHANNELS,
        HEADS,
        CHANNELS // HEADS,
        cross_attention_dim=CHANNELS,
        attention_bias=True,
        activation_fn="gelu-approximate",
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
    ).to(dtype)
    generator = torch.Generator().manual_seed(0)
    x, text = (torch.randn(1, n, CHANNELS, generator=generator).to(dtype) for n in (tokens, TEXT))
    moment = torch.randn(1, 6 * CHANNELS, generator=generator).to(dtype)
    return lambda: net(x, encoder_hidden_states=text, timestep=moment)


def ends(codec: MessageCodec, tensor: Tensor, base: Tensor) -> tuple[Callable[[], object], Callable[[], object]]:
    """The owner's work on one tensor, its own base moved along, and a receiver's."""
    raw, _ = encode_change(codec, tensor, base)
    held = base.clone()
    return lambda: encode_change(codec, tensor, base), lambda: codec.added(from_bytes(codec, raw, base), held)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("codecs", nargs="*", default=CODECS, help="names, or name:number")
    parser.add_argument("--tokens", type=int, default=1024, help="of one device")
    parser.add_argument("--devices", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    acclimate.keep_freed_memory()
    dtype = getattr(torch, options.dtype)
    generator = torch.Generator().manual_seed(1)
    tensor, base = (torch.randn(options.tokens, CHANNELS, generator=generator).to(dtype) for _ in range(2))
    arms: dict[str, Callable[[], object]] = {"block": block(options.tokens, dtype)}
    for name in options.codecs:
        arms[f"{name} encode"], arms[f"{name} decode"] = ends(message_codec(name), tensor, base)
    with torch.inference_mode():
        times = in_turn(arms, options.rounds)
    table = Table(title=f"{options.tokens} tokens, {options.dtype}, {options.threads} threads")
    for column in ("", "ratio", "encode ms", "decode ms", "share of a block", f"{options.devices} devices"):
        table.add_column(column, justify="right" if column else "left")
    for name in options.codecs:
        codec = message_codec(name)
        ratio = tensor.numel() * dtype.itemsize / codec.size(tensor.shape, dtype)
        table.add_row(name, f"{ratio:.1f}", *_row(times, name, options.devices - 1))
    table.caption = f"block {statistics.median(times['block']) * 1e3:.1f} ms"
    Console(width=110).print(table)


def _row(times: dict[str, list[float]], name: str, others: int) -> list[str]:
    encode, decode, whole = times[f"{name} encode"], times[f"{name} decode"], times["block"]
    one = [2 * (e + d) / f for e, d, f in zip(encode, decode, whole, strict=True)]
    every = [2 * (e + others * d) / f for e, d, f in zip(encode, decode, whole, strict=True)]
    milliseconds = [f"{statistics.median(values) * 1e3:.2f}" for values in (encode, decode)]
    return [*milliseconds, *(f"{statistics.median(values):.1%}" for values in (one, every))]


if __name__ == "__main__":
    main()
