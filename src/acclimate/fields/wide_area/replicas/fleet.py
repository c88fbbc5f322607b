"""Replicas that adapt one model together at test time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.optim import SGD

from acclimate.adapted import Adapted
from acclimate.core.config import whole
from acclimate.fields.wide_area.policy.conditions import Setting
from acclimate.fields.wide_area.replicas.decosgd import DeCoSGD
from acclimate.fields.wide_area.replicas.steering import Steering
from acclimate.fields.wide_area.wire.entries import Entries
from acclimate.wire.transport import Transport

__all__ = ["Fleet"]


class Fleet:
    """Brings what replicas have learned together over a slow link, as `adapt(net, "tent", replicas=Fleet(...))`.

    Each replica adapts to its own stream. After every `every` calls it sends how far its declared state has moved from
    the common one, compressed, with error feedback; before the next call it takes the common state, which has moved by
    the mean of what all replicas sent `staleness` rounds ago: `x <- x + mean_i D^i`. So all replicas begin each round
    equal to the bit. With staleness 0 and ratio 1 a round is the mean of their states.

    What is shared is each learned tensor of number type that the method's state declares to be merged by mean: adapted
    weights and statistics. Moments of optimisers, counters, banks and guards stay each replica's own. A batch that was
    held or refused sends no movement of its own.

    All replicas make the same number of calls: one that makes none for longer than the transport's timeout is a
    `LostPeer` for the others. A reset is made by all between two rounds, with `reset`; that of the model, and its
    `restore`, would leave this replica alone with another state, and raise RuntimeError. An adaptation that is saved
    holds the common state; what was not sent yet is in `state_dict`.

    Arguments:
        transport: to the other replicas.
        policy: as for `DeCoSGD`.
        every: calls between rounds, 1 or more.
        entries, parity_every: as for `DeCoSGD`.

    The paper has no such part; it is this library's. It fails where streams of replicas need different adaptations.
    """

    def __init__(
        self,
        transport: Transport,
        policy: Steering = Setting(0, 1.0),  # noqa: B008
        *,
        every: int = 1,
        entries: Entries | None = None,
        parity_every: int = 0,
    ) -> None:
        whole(1, every=every)
        self._transport, self._policy, self._every = transport, policy, every
        self._entries, self._parity_every = entries, parity_every
        self._calls, self._due = 0, True
        self._own: list[Tensor] = []
        self._common: list[nn.Parameter] = []
        self._training: DeCoSGD | None = None
        self._adapted: Adapted | None = None

    def attach(self, adapted: Adapted) -> None:
        """Called by `adapt`. ValueError for a fleet that has a model already, or a method without anything to share."""
        if self._adapted is not None:
            raise ValueError("this fleet has a model already. Make one for each adapted model.")
        slots = dict(adapted.state.table.entries())
        self._own = [
            slot.tensor
            for slot in (slots[name] for name in sorted(slots))
            if slot.merge == "mean" and slot.learned and not slot.host and slot.tensor.is_floating_point()
        ]
        if not self._own:
            raise ValueError(
                f"{adapted.method.name} declares nothing that replicas could share. Choose another method."
            )
        self._adapted = adapted
        self._common = [nn.Parameter(each.detach().clone().contiguous()) for each in self._own]
        self._training = DeCoSGD(
            self._common,
            lambda parameters: SGD(parameters, lr=1.0),
            transport=self._transport,
            policy=self._policy,
            entries=self._entries,
            parity_every=self._parity_every,
        )
        adapted.register_forward_pre_hook(lambda *_: self._before())
        adapted.register_forward_hook(lambda *_: self._after())
        adapted.reset, adapted.restore = _no_reset, _no_restore

    @property
    def training(self) -> DeCoSGD:
        """What is sent, waited for and in force."""
        if self._training is None:
            raise RuntimeError("this fleet has no model yet. Pass it to adapt as replicas=.")
        return self._training

    def _before(self) -> None:
        if self._due:
            self.training.begin()
            self._take()
            self._due = False

    def _after(self) -> None:
        self._calls += 1
        if self._calls % self._every == 0:
            self._send()

    @torch.no_grad()
    def _send(self) -> None:
        assert self._adapted is not None
        self._adapted.settle()
        for common, own in zip(self._common, self._own, strict=True):
            if common.grad is None:
                common.grad = torch.empty_like(common)
            torch.sub(common, own, out=common.grad)
        self.training.end()
        self._due = True

    @torch.no_grad()
    def _take(self) -> None:
        for common, own in zip(self._common, self._own, strict=True):
            own.copy_(common)

    @torch.no_grad()
    def drain(self) -> None:
        """Bring in all that is on its way, by all replicas, as at the end of a stream."""
        if not self._due:
            self._send()
        self.training.drain()
        self._take()

    @torch.no_grad()
    def reset(self) -> None:
        """Go back to the source, by all replicas; what was on its way or not sent yet is forgotten."""
        assert self._adapted is not None
        self.drain()
        Adapted.reset(self._adapted)
        for common, own in zip(self._common, self._own, strict=True):
            common.copy_(own)
        self.training.error.zero_()

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` takes: messages under way, what is not sent yet, the common state; by all replicas,
        after a call that ends a round."""
        if not self._due:
            raise RuntimeError(f"{self._calls} calls were made, {self._every} to a round. Save at the end of one.")
        return {"calls": self._calls, "training": self.training.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned on this replica, before the first call. Errors as for `DeCoSGD`."""
        self.training.load_state_dict(state["training"])
        self._calls, self._due = int(state["calls"]), True


def _no_reset() -> NoReturn:
    raise RuntimeError("this model has replicas, which would not be reset. Call reset() of the Fleet, on every one.")


def _no_restore(tag: str) -> NoReturn:
    raise RuntimeError(
        f"this model has replicas, which would not go back to {tag!r}. Keep state_dict() of the Fleet on every one, "
        "and load it with load_state_dict()."
    )
