"""The ranks of a job, each with its own shard."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from acclimate.fields.diffusion.exchange.attention import attention
from acclimate.fields.diffusion.exchange.envelope import Envelope
from acclimate.fields.diffusion.exchange.post import Post
from acclimate.fields.diffusion.exchange.shards import QKV
from acclimate.fields.diffusion.exchange.strategies import build
from acclimate.fields.diffusion.exchange.strategy import Strategy
from acclimate.fields.diffusion.residual.books import Stats
from acclimate.fields.diffusion.residual.context import Observer, ResidualContext
from acclimate.fields.diffusion.residual.settings import ResidualSettings, fingerprint
from acclimate.wire.faults import Disagreement, LinkFault
from acclimate.wire.peers import Mail, Peers

__all__ = ["Distributed"]


class Distributed:
    """An `Exchange` between the processes of a job; every rank builds one, with the same arguments.

    Every message goes behind an envelope of 192 bytes that says which it is: image, evaluation, layer, settings, shape.
    Ranks that do not do the same learn so from the next envelope; a rank that fails, in the model or here, sends one
    that says so. All then raise a `LinkFault` at once (the rank that failed its own error), and after `reset` on all
    ranks the next image starts clean. Only a rank that dies or hangs ends the exchange for good.

    Packets travel through the memory of the CPU; between GPUs of one machine other ways are faster.

    Arguments:
        strategy: a name in `STRATEGIES`, or one of its classes' instances.
        settings: of the compression; the default ones where left out.
        mail: between the ranks; `Peers` where left out, an `EmulatedPeers` for a slow link.
        timeout: s that a rank may keep another waiting; only for the mail that is made here.
        measured: whether `stats` tells errors of the own tensors. Without feedback only with own_block="reconstructed".
        observe: told of every packet made on this rank: its key, step and bytes.

    Raises:
        ValueError: torch.distributed is not set up, or an argument out of range.
    """

    def __init__(
        self,
        strategy: str | Strategy = "gather",
        settings: ResidualSettings | None = None,
        *,
        mail: Mail | None = None,
        timeout: float = 60.0,
        measured: bool = False,
        observe: Observer | None = None,
    ) -> None:
        self._strategy = build(strategy)
        settings = settings or ResidualSettings()
        self._context = ResidualContext(settings, measured=measured, observe=observe)
        self._mail = Peers(timeout=timeout) if mail is None else mail
        self.rank, self.size = self._mail.rank, self._mail.size
        self._post = Post(self._mail, self._strategy.audience(self.rank, self.size) if self.size > 1 else ())
        self._settings = fingerprint({**settings.config(), **self._strategy.config()})
        self._image = 0

    @torch.no_grad()
    def attend(self, query: Tensor, key: Tensor, value: Tensor, *, layer: int, scale: float | None = None) -> Tensor:
        try:
            self._context.visit(layer, query, key, value)
            if self.size == 1:
                return attention(query, key, value, scale)
            self._post.begin(self._envelope(key, layer))
            return self._strategy.attend(self._context, self._post, QKV(query, key, value), layer, scale)
        except BaseException as error:
            self._context.spoiled = self._context.spoiled or error
            self._post.fail(error)
            raise

    def _envelope(self, key: Tensor, layer: int) -> Envelope:
        context = self._context
        return Envelope(
            source=self.rank,
            size=self.size,
            settings=self._settings,
            image=self._image,
            evaluation=context.books.evaluations,
            step=context.step,
            branch=context.branch,
            layer=layer,
            part=0,
            dtype=key.dtype,
            shape=(key.shape[0], key.shape[1], key.shape[2], key.shape[3]),
            length=0,
        )

    @contextmanager
    def evaluation(self, branch: int = 0) -> Iterator[None]:
        try:
            if isinstance(self._mail, Peers) and dist.get_world_size() != self.size:
                raise Disagreement(
                    f"the job has {dist.get_world_size()} ranks now, and had {self.size} when this exchange was built. "
                    "Build another on all ranks."
                )
            with self._context.evaluation(branch):
                yield
        except BaseException as error:
            self._post.fail(error)
            raise

    def reset(self) -> None:
        """Forget everything, before every image; on all ranks.

        Raises:
            LostPeer: a rank is gone, and nothing but a new job helps.
            LinkFault: the image that ends here failed on another rank, as only its last messages tell; reset again.
        """
        if self._context.spoiled is None:
            try:
                self._strategy.drain()
            except LinkFault as error:
                self._context.spoiled = error
                self._post.fail(error)
                raise
        self._image = 0 if self._post.recover() else self._image + 1
        self._context.reset()
        self._strategy.reset()

    def stats(self) -> Stats:
        return self._context.stats()

    def close(self) -> None:
        self._mail.close()
