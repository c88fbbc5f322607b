"""The ranks of a job, each with its own shard."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from acclimate.core.config import whole_or_none
from acclimate.fields.diffusion.exchange.attention import attention
from acclimate.fields.diffusion.exchange.envelope import Envelope
from acclimate.fields.diffusion.exchange.farewell import Farewell
from acclimate.fields.diffusion.exchange.post import Post
from acclimate.fields.diffusion.exchange.shards import QKV
from acclimate.fields.diffusion.exchange.strategies import build
from acclimate.fields.diffusion.exchange.strategy import Strategy
from acclimate.fields.diffusion.residual.books import Stats
from acclimate.fields.diffusion.residual.context import Observer, ResidualContext
from acclimate.fields.diffusion.residual.settings import ResidualSettings, fingerprint
from acclimate.fields.diffusion.residual.suited import suited
from acclimate.wire.faults import Disagreement
from acclimate.wire.mail import Mail
from acclimate.wire.peers import Peers

__all__ = ["Distributed"]


class Distributed:
    """An `Exchange` between the processes of a job; every rank builds one, with the same arguments.

    Every message goes behind an envelope of 192 bytes that says which it is: image, evaluation, layer, settings, shape.
    Ranks that do not do the same learn so from the next envelope; a rank that fails, in the model or here, sends one
    that says so. All then raise a `LinkFault` at once (the rank that failed its own error), and after `reset` on all
    ranks the next image starts clean. Only a rank that dies or hangs ends the exchange for good.

    Images are kept apart by `reset`, where all ranks wait for each other: it lets nothing of the image before pass, and
    pairs the n-th image of each rank with the n-th of the others. Ranks that differ in how the image before went (it
    failed on some after it was complete on others, or has fewer evaluations) all raise there, since they may be about
    to begin different images; the reset has taken place then, and the next one goes through. What an image is, only the
    caller knows: give its number to `reset`, and ranks that are about to begin different ones raise as well.

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
        settings = suited(settings or ResidualSettings(), self._strategy.config())
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
            self.fail(error)
            raise

    def fail(self, error: BaseException) -> None:
        """Give the image up because of what went wrong here, and tell all other ranks; `reset` begins the next."""
        self._context.spoiled = self._context.spoiled or error
        self._post.fail(error)

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
            self.fail(error)
            raise

    def reset(self, image: int | None = None) -> None:
        """Forget everything, before every image; on all ranks, which wait for each other here.

        Arguments:
            image: number of the image that begins, 0 or more, the same on all ranks; left out, it is not compared.

        Raises:
            LostPeer: a rank is gone or does not come within the timeout, and nothing but a new job helps.
            LinkFault: the ranks may be about to begin different images; on all ranks. Reset all of them again.
        """
        whole_or_none(0, image=image)
        error, evaluations = self._context.spoiled, self._context.books.evaluations
        said = Farewell(
            source=self.rank,
            size=self.size,
            settings=self._settings,
            image=self._image,
            evaluations=evaluations,
            failed="" if error is None else f"{type(error).__name__}: {error}",
            following=-1 if image is None else image,
        )
        self._image += 1
        self._context.reset()
        self._strategy.reset()
        if self.size > 1:
            self._post.meet(said)

    def stats(self) -> Stats:
        return self._context.stats()

    def close(self) -> None:
        self._mail.close()
