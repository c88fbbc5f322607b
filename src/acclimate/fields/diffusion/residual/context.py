"""All channels of one exchange, the count of evaluations, and the books."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from acclimate.core.config import whole
from acclimate.fields.diffusion.residual.books import Books, Key, Stats
from acclimate.fields.diffusion.residual.channel import ResidualChannel
from acclimate.fields.diffusion.residual.packet import DTYPES
from acclimate.fields.diffusion.residual.settings import ResidualSettings

__all__ = ["Observer", "ResidualContext"]

Observer = Callable[[Key, int, Tensor], None]
"""Told of every packet made here: which tensor, which step, and its bytes."""


class ResidualContext:
    """Channels by key, and which evaluation of which branch is under way.

    A step of a branch is one evaluation of the model, whatever the scheduler's time. Every evaluation of a branch
    visits the same layers, each once.

    Arguments:
        settings: of all channels.
        measured: whether to compare every tensor with what receivers know of it, for `stats`.
        observe: told of every packet made here.

    Attributes:
        settings, books: as they say.
        branch, step: of the evaluation under way.
        spoiled: what went wrong in this image, which only `reset` makes good.
    """

    def __init__(self, settings: ResidualSettings, *, measured: bool = False, observe: Observer | None = None) -> None:
        self.settings, self._measured, self._observe = settings, measured, observe
        self.reset()

    def reset(self) -> None:
        """Forget everything, as before a new image."""
        self.books = Books()
        self.branch, self.step = 0, 0
        self.spoiled: BaseException | None = None
        self._owners: dict[Key, ResidualChannel] = {}
        self._receivers: dict[Key, ResidualChannel] = {}
        self._steps: dict[int, int] = {}
        self._layers: dict[int, set[int]] = {}
        self._forms: dict[tuple[int, int], tuple[tuple[int, ...], torch.dtype]] = {}
        self._visited: set[int] | None = None

    @contextmanager
    def evaluation(self, branch: int = 0) -> Iterator[None]:
        """One forward of the model.

        Arguments:
            branch: 0 or more; one for each forward where guidance takes several.

        Raises:
            ValueError: an evaluation within another, one after a fault, or one that left out layers of earlier ones.
        """
        whole(0, branch=branch)
        if self._visited is not None:
            raise ValueError("an evaluation is under way already; end it before the next begins.")
        if self.spoiled is not None:
            raise ValueError(f"this image failed in an earlier evaluation ({self.spoiled}). Call reset() first.")
        self.branch, self.step, self._visited = branch, self._steps.get(branch, 0), set()
        try:
            yield
            self._complete(branch, self._visited)
        except BaseException as error:
            self.spoiled = error
            raise
        finally:
            self._visited = None
        self._steps[branch] = self.step + 1
        self.books.evaluations += 1

    def _complete(self, branch: int, visited: set[int]) -> None:
        missing = self._layers.setdefault(branch, visited) - visited
        if missing:
            raise ValueError(
                f"evaluation {self.step} of branch {branch} left out layers {sorted(missing)}. Skip no layers while "
                "activations are exchanged: turn caching of blocks off."
            )

    def visit(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> None:
        """Note that a layer exchanges now.

        Raises:
            ValueError: outside an evaluation, a layer out of turn, tensors that are not alike `[B, n, H, D]`, or not
                like those of the layer's evaluation before.
        """
        whole(0, layer=layer)
        if self._visited is None:
            raise ValueError("no evaluation is under way. Call the model within `with exchange.evaluation():`.")
        if self.spoiled is not None:
            raise ValueError(f"this image failed in this evaluation ({self.spoiled}). Call reset() first.")
        if layer in self._visited:
            raise ValueError(
                f"layer {layer} was visited twice in evaluation {self.step} of branch {self.branch}. Begin an "
                "evaluation for every forward, and number the layers differently."
            )
        known = self._layers.get(self.branch)
        if known is not None and layer not in known:
            raise ValueError(f"layer {layer} was not visited by the first evaluation of branch {self.branch}.")
        self._check(layer, query, key, value)
        self._visited.add(layer)

    def _check(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> None:
        if key.dim() != 4 or query.shape != key.shape or value.shape != key.shape or key.dtype not in DTYPES:
            raise ValueError(
                f"layer {layer}: found queries {list(query.shape)}, keys {list(key.shape)} and values "
                f"{list(value.shape)} of {key.dtype}; expected the same [B, n, H, D] of float32, float16 or bfloat16."
            )
        form = (tuple(key.shape), key.dtype)
        before = self._forms.setdefault((self.branch, layer), form)
        if form != before:
            raise ValueError(
                f"layer {layer}: found {list(form[0])} of {form[1]} in evaluation {self.step} of branch {self.branch}, "
                f"after {list(before[0])} of {before[1]}. Call reset() first when an image of another size begins."
            )

    def encode(self, key: Key, tensor: Tensor) -> Tensor:
        """The packet of a tensor that is owned here. ValueError as for `ResidualChannel.encode`."""
        channel = self._channel(key, self._owners)
        before = channel.held
        packet = channel.encode(tensor)
        if self._observe is not None:
            self._observe(key, self.step, packet)
        if self._measured and not self.settings.open_loop and channel.held is not None:
            self.books.measure(key, tensor, before, channel.held)
        return packet

    def decode(self, key: Key, packet: Tensor, like: Tensor) -> Tensor:
        """What is known of another's tensor after its packet. Errors as for `ResidualChannel.decode`."""
        return self._channel(key, self._receivers).decode(packet, like)

    def mirrored(self, key: Key, packet: Tensor, tensor: Tensor) -> Tensor:
        """What the receivers know of a tensor that is owned here, after its packet."""
        if not self.settings.open_loop:
            held = self._owners[key].held
            assert held is not None
            return held
        before = self._channel(key, self._receivers).held
        after = self.decode(key, packet, tensor)
        if self._measured:
            self.books.measure(key, tensor, before, after)
        return after

    def _channel(self, key: Key, ends: dict[Key, ResidualChannel]) -> ResidualChannel:
        if key not in ends:
            settings = self.settings
            ends[key] = ResidualChannel(
                lambda step: settings.chosen(key.layer, step, key.kind),
                feedback=settings.feedback,
                warmup=settings.warmup,
                order=settings.order,
                drift_decay=settings.drift_decay,
                refresh_every=settings.refresh_every,
                name=f"layer {key.layer}, {key.kind} of rank {key.source}, branch {key.branch}",
            )
        return ends[key]

    def packet_size(self, key: Key, like: Tensor, *, owned: bool) -> int:
        """Bytes of the next packet of a tensor like this one."""
        return self._channel(key, self._owners if owned else self._receivers).next_size(like.shape, like.dtype)

    def checksum(self, key: Key, *, owned: bool) -> int:
        """64 bits of what one end of a channel holds."""
        return self._channel(key, self._owners if owned else self._receivers).checksum()

    def stats(self) -> Stats:
        """Bytes and errors since the last reset."""
        return self.books.stats()
