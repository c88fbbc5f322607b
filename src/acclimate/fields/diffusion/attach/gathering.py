"""Bringing the tokens of all ranks together where a transformer puts out an image."""

from __future__ import annotations

import torch
from torch import Tensor

from acclimate.fields.diffusion.exchange.envelope import ENVELOPE, Envelope
from acclimate.fields.diffusion.exchange.farewell import Farewell
from acclimate.fields.diffusion.exchange.post import Post
from acclimate.wire.mail import Mail

__all__ = ["Gathering"]


class Gathering:
    """All-gather of exact tokens, once in each forward, where ranks also compare what their models were given.

    No rank puts out an image that was not computed by all from the same latents, text and timestep.

    Arguments:
        mail: between the ranks, for nothing else.

    Attributes:
        inputs: digest of what the model was given in this forward, 0 to compare nothing.
        sent: bytes of this rank since the last reset, envelopes included.
    """

    def __init__(self, mail: Mail) -> None:
        self._mail = mail
        self._post = Post(mail, tuple(rank for rank in range(mail.size) if rank != mail.rank))
        self._image = 0
        self._begin()

    def _begin(self) -> None:
        self._number, self.inputs, self.sent = 0, 0, 0
        self._failed = ""

    def __call__(self, tokens: Tensor) -> Tensor:
        """The tokens of all ranks `[B, W n, C]`, in the order of ranks, from own ones `[B, n, C]`.

        Raises:
            LinkFault: another rank is gone, could not go on, or has other tokens or inputs.
        """
        packet = tokens.contiguous().view(-1).view(torch.uint8).cpu()
        self._post.begin(self._envelope(tokens))
        self._number += 1
        coming = {peer: self._post.expect(peer, peer, len(packet)) for peer in self._post.peers}
        leaving = [self._post.send(peer, packet) for peer in self._post.peers]
        self.sent += len(leaving) * (len(packet) + ENVELOPE)
        for each in coming.values():
            each.check()
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
            image=self._image,
            evaluation=self._number,
            step=0,
            branch=0,
            layer=0,
            part=0,
            dtype=tokens.dtype,
            shape=(batch, own, 1, channels),
            length=0,
            inputs=self.inputs,
        )

    def fail(self, error: BaseException) -> None:
        """Tell the other ranks that this one cannot go on."""
        self._failed = self._failed or f"{type(error).__name__}: {error}"
        self._post.fail(error)

    def reset(self) -> None:
        """Begin another image, on all ranks, which wait for each other here; see `Post.meet`.

        Raises:
            LinkFault: a rank is gone, or the ranks may be about to begin different images.
        """
        said = Farewell(
            source=self._post.rank,
            size=self._post.size,
            settings=0,
            image=self._image,
            evaluations=self._number,
            failed=self._failed,
            following=-1,
        )
        self._image += 1
        self._begin()
        self._post.meet(said)

    def close(self) -> None:
        """Give up messages under way; never waits for a peer."""
        self._mail.close()
