"""Compressed exchange for a transformer of diffusers, in one call."""

from __future__ import annotations

from typing import Any

from torch import nn

from acclimate.compression.message import MessageCodec
from acclimate.fields.diffusion.attach.compacted import Compacted
from acclimate.fields.diffusion.attach.gathering import Gathering
from acclimate.fields.diffusion.attach.plans import plan_of
from acclimate.fields.diffusion.exchange.exchange import Exchange
from acclimate.fields.diffusion.exchange.real import Distributed
from acclimate.fields.diffusion.exchange.simulated import Simulated
from acclimate.fields.diffusion.exchange.strategies import build
from acclimate.fields.diffusion.exchange.strategy import Strategy
from acclimate.fields.diffusion.residual.settings import ResidualSettings
from acclimate.fields.diffusion.residual.suited import suited
from acclimate.wire.peers import Mail, Peers

__all__ = ["compact"]

_TIMEOUT = 60.0


def compact(
    transformer: nn.Module,
    *,
    strategy: str | Strategy | None = None,
    codec: MessageCodec | str | None = None,
    devices: int | None = None,
    warmup: int | None = None,
    exchange: Exchange | None = None,
    mail: Mail | None = None,
    branches: int | None = None,
    timeout: float | None = None,
    **settings: Any,
) -> Compacted:
    """Let the self-attention of a diffusion transformer go through a compressed exchange between devices.

    The transformer is called as before, by a pipeline or by hand; only its attention processors and its forward
    change, until `detach`. Between processes each rank calls it with the same whole inputs, computes its own part of
    the tokens, and gets the whole output. Cross-attention is left alone.

    Arguments:
        transformer: a `DiTTransformer2DModel`, `PixArtTransformer2DModel`, `SD3Transformer2DModel`,
            `FluxTransformer2DModel` or `CogVideoXTransformer3DModel` of diffusers, in evaluation mode.
        strategy: "gather" (where left out), "ring", "ulysses" or "stale"; see `STRATEGIES`. Or one that is ready.
        codec: of the changes of keys and values; "whole" for an exact exchange. The strategy's own where left out:
            "two_bit" for gather and ring, "whole" for ulysses and stale, which take no other.
        devices: how many are simulated in this process, 1 or more. None for the ranks of torch.distributed, which all
            call this.
        warmup: evaluations at the start of an image that send everything; 1 where left out.
        exchange: one that is ready, with strategy, settings and devices of its own, which are then left out here. One
            that is not `Simulated` is taken to be given each rank's own tokens.
        mail: brings the output of all ranks together; `Peers` where left out, unused if simulated. Not that of an
            exchange: each has its own.
        branches: forwards in each step, for guidance that takes several; by default told by what they are conditioned
            on, see `Branches`.
        timeout: s until a rank that does not answer ends the run, 60 where left out. With an exchange, of `Peers` for
            the output alone.
        settings: further ones of `ResidualSettings`, such as `order`, `feedback` or `refresh_every`.

    Returns:
        Call its `reset` before each image, or draw each image within `with compacted.image():`.

    Raises:
        ValueError: a transformer without a plan, attentions that are not as its class makes them, an argument out of
            range or without an effect, or torch.distributed that is not set up. When it is called: a sequence (of text
            or of image) that does not divide by the number of devices, a mask for self-attention, or training mode.
        LinkFault: when it is called, and a rank failed.

    When it fails: what skips blocks on some steps (caches of blocks) or changes the batch within an image is refused
    by the exchange with a ValueError. A new image without `reset` starts from the end of the one before and is poor in
    its first steps.

    Source: CompactFusion, NeurIPS 2025 (arXiv 2507.17511).
    """
    plan_of(transformer).each_attention(transformer)
    if exchange is None:
        chosen = dict(settings, codec=codec) if warmup is None else dict(settings, codec=codec, warmup=warmup)
        exchange = _built(strategy, ResidualSettings(**chosen), devices, timeout)
    else:
        named = {"strategy": strategy, "codec": codec, "devices": devices, "warmup": warmup}
        unused = {} if mail is None and not isinstance(exchange, Simulated) else {"timeout": timeout}
        given = [name for name, value in {**named, **unused}.items() if value is not None] + list(settings)
        if given:
            raise ValueError(f"found an exchange and {', '.join(given)}, which are the exchange's own. Leave them out.")
    if isinstance(exchange, Simulated):
        return Compacted(transformer, exchange, branches=branches)
    if mail is None:
        mail = Peers(timeout=_TIMEOUT if timeout is None else timeout)
    return Compacted(transformer, exchange, Gathering(mail), branches)


def _built(
    strategy: str | Strategy | None, settings: ResidualSettings, devices: int | None, timeout: float | None
) -> Exchange:
    strategy = build("gather" if strategy is None else strategy)
    settings = suited(settings, strategy.config())
    if devices is not None:
        return Simulated(devices, strategy, settings)
    return Distributed(strategy, settings, timeout=_TIMEOUT if timeout is None else timeout)
