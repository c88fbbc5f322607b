"""Bringing the tokens of all ranks together where a transformer puts out an image."""

from __future__ import annotations

import torch
from torch import Tensor

from acclimate.fields.diffusion.exchange.envelope import Envelope
from acclimate.fields.diffusion.exchange.post import Post
from acclimate.wire.peers import Mail

__all__ = ["Gathering"]


class Gathering:
    """All-gather of exact tokens, once in each forward.

    Arguments:
        mail: between the ranks, for nothing else.
    """

    def __init__(self, mail: Mail) -> None:
        self._mail = mail
        self._post = Post(mail, tuple(rank for rank in range(mail.size) if rank != mail.rank))
        self._number = 0

    def __call__(self, tokens: Tensor) -> Tensor:
        """The tokens of all ranks `[B, W n, C]`, in the order of ranks, from own ones `[B, n, C]`.

        Raises:
            LinkFault: another rank is gone, could not go on, or has other tokens.
        """
        packet = tokens.contiguous().view(-1).view(torch.uint8).cpu()
        self._post.begin(self._envelope(tokens))
        self._number += 1
        coming = {peer: self._post.expect(peer, peer, len(packet)) for peer in self._post.peers}
        leaving = [self._post.send(peer, packet) for peer in self._post.peers]
        every = [packet if rank not in coming else coming[rank].content() for rank in range(self._post.size)]
        for each in leaving:
            each.wait()
        return torch.cat([part.view(tokens.dtype).view(tokens.shape) for part in every], 1).to(tokens.device)

    def _envelope(self, tokens: Tensor) -> Envelope:
        batch, own, channels = tokens.shape
        return Envelope(
            source=self._post.rank,
            size=self._post.size,
            settings=0,
            image=0,
            evaluation=self._number,
            step=0,
            branch=0,
            layer=0,
            part=0,
            dtype=tokens.dtype,
            shape=(batch, own, 1, channels),
            length=0,
        )

    def fail(self, error: BaseException) -> None:
        """Tell the other ranks that this one cannot go on."""
        self._post.fail(error)

    def reset(self) -> None:
        """Begin anew, on all ranks. `LostPeer` once one is gone."""
        self._post.recover()
        self._number = 0

    def close(self) -> None:
        """Give up messages under way; never waits for a peer."""
        self._mail.close()
