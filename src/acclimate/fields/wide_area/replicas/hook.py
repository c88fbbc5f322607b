"""The same exchange as a communication hook, for scripts that use DistributedDataParallel."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.futures import Future

from acclimate.core.config import whole
from acclimate.fields.wide_area.network.estimator import Estimator
from acclimate.fields.wide_area.policy.conditions import Report, Setting
from acclimate.fields.wide_area.policy.controller import FALLBACK
from acclimate.fields.wide_area.replicas.averaging import add_mean, opened
from acclimate.fields.wide_area.replicas.exchange import Exchange
from acclimate.fields.wide_area.replicas.gradients import digest
from acclimate.fields.wide_area.replicas.memory import ErrorMemory
from acclimate.fields.wide_area.replicas.steering import Steering, Wheel
from acclimate.fields.wide_area.wire.entries import Entries
from acclimate.fields.wide_area.wire.packet import Packet
from acclimate.wire.transport import Transport

if TYPE_CHECKING:
    from torch._C._distributed_c10d import GradBucket
    from torch.nn.parallel import DistributedDataParallel

__all__ = ["DelayedHook"]


class DelayedHook:
    """Lets `DistributedDataParallel` train as `DeCoSGD` does, with the optimiser of the script as it is [S: 9.3].

    One line more: `DelayedHook(model, transport=GlooTransport(), policy=Setting(2, 0.05))` after the model was wrapped.
    Each bucket of gradients has an error memory and a packet of its own. What comes out of backward in iteration s is
    the mean message of iteration s - tau, so weights follow the same recurrence; waiting happens in backward. Once tau
    falls, several messages come out as their sum, in one step; once it rises, zeros do.

    Arguments:
        model: wrapped; the hook registers itself. Not for no_sync, unused parameters, or a static graph.
        transport, policy, entries, parity_every, estimator: as for `DeCoSGD`.
        dense_iterations: the first ones exchange whole gradients at once, 1 or more, since DDP cuts its buckets anew
            after the first.

    For tau iterations after these gradients are zero: an optimiser with momentum, weight decay or Adam's averages still
    makes steps, which `filling` tells how to leave out.

    When it fails: backward raises `LinkFault` as `DeCoSGD.begin` does. RuntimeError where buckets change once gradients
    are compressed; give more dense iterations.

    >>> DelayedHook.drain.__name__
    'drain'
    """

    filling: bool
    """Whether the gradients of the last backward were zero because no message was due."""

    def __init__(
        self,
        model: DistributedDataParallel,
        *,
        transport: Transport,
        policy: Steering = FALLBACK,
        entries: Entries | None = None,
        dense_iterations: int = 2,
        parity_every: int = 0,
        estimator: Estimator | None = None,
    ) -> None:
        whole(1, dense_iterations=dense_iterations)
        whole(0, parity_every=parity_every)
        self._parameters = [each for each in model.parameters() if each.requires_grad]
        dense_bytes = sum(each.numel() * each.itemsize for each in self._parameters)
        self._entries, self._dense, self._parity_every = entries or Entries(), dense_iterations, parity_every
        self._wheel = Wheel(policy, dense_bits=8.0 * dense_bytes)
        self._exchange = Exchange(transport, estimator or Estimator())
        self._memories: list[ErrorMemory] = []
        self._buckets: list[_Bucket] = []
        self._numbers: deque[int] = deque()
        self.step, self.filling = 0, False
        self._ended, self._waited = transport.now(), 0.0
        if self._wheel.controller is not None:
            self._exchange.probe(dense_bytes)

        def run(state: object, bucket: Any) -> Any:
            return self._send(bucket)

        run.__annotations__.clear()  # torch compares annotations with its types, and would find their names only
        model.register_comm_hook(None, run)

    @property
    def setting(self) -> Setting:
        """In force at this iteration."""
        return self._wheel.setting

    def _send(self, bucket: GradBucket) -> Future[Tensor]:
        buffer, index = bucket.buffer(), bucket.index()
        if index == 0:
            self._buckets = []
        future: Future[Tensor] = Future(devices=[buffer.device] if buffer.is_cuda else None)
        self._buckets.append(_Bucket(buffer.numel(), list(bucket.parameters()), future))
        indices, values = (None, buffer) if self.step < self._dense else self._compressed(index, buffer)
        parity = self._parity_every > 0 and index == 0 and self.step % self._parity_every == 0
        told = digest(self._parameters) if parity else None
        self._exchange.send(Packet(self.step, indices, values, self._exchange.estimator.report(), told))
        if bucket.is_last():
            self._numbers.append(self.step)
            self._finish()
        return future

    def _compressed(self, index: int, buffer: Tensor) -> tuple[Tensor | None, Tensor]:
        if index == len(self._memories):
            self._memories.append(ErrorMemory(buffer.numel(), self._entries, buffer.dtype, buffer.device))
        memory = self._memories[index]
        if memory.vector.numel() != buffer.numel():
            raise RuntimeError(
                f"bucket {index} has {buffer.numel()} entries in iteration {self.step} and had "
                f"{memory.vector.numel()} before. DDP cut its buckets anew; raise dense_iterations."
            )
        return memory.compress(buffer, self.setting.ratio)

    def _finish(self) -> None:
        """Give every bucket the sum of what is due, once all of them are sent."""
        staleness = 0 if self.step < self._dense else self.setting.staleness
        sums: list[Tensor | None] = [None] * len(self._buckets)
        reports: list[Report] = []
        self.filling = True
        while self._numbers and self._numbers[0] <= self.step - staleness:
            means, reports = self._oldest()
            sums = [mean if total is None else total + mean for total, mean in zip(sums, means, strict=True)]
            self.filling = False
        now, waited = self._exchange.transport.now(), self._exchange.waited
        if now - self._ended > waited - self._waited:
            self._exchange.estimator.observe_compute(now - self._ended - (waited - self._waited))
        self._ended, self._waited = now, waited
        if reports:
            self._wheel.observe(self.step, reports)
        self.step += 1
        self._wheel.advance(self.step)
        for bucket, total in zip(self._buckets, sums, strict=True):
            bucket.future.set_result(bucket.zeros() if total is None else total)

    def _oldest(self) -> tuple[list[Tensor], list[Report]]:
        """Means of the oldest message for every bucket, and what its headers say."""
        means: list[Tensor] = []
        reports: list[Report] = []
        for bucket in self._buckets:
            packets = opened(self._exchange.receive(), self._numbers[0], bucket.count)
            self._exchange.done()
            means.append(add_mean(packets, bucket.zeros()))
            reports = [each.report for each in packets]
        self._numbers.popleft()
        return means, reports

    def drain(self, step: Callable[[], object]) -> int:
        """Apply the messages under way, in order, and say how many.

        Arguments:
            step: such as `optimizer.step`; called after the gradients of each message were put in place.
        """
        count = len(self._numbers)
        for _ in range(count):
            for bucket, mean in zip(self._buckets, self._oldest()[0], strict=True):
                bucket.assign(mean)
            step()
        return count


class _Bucket:
    """One bucket of the last iteration."""

    def __init__(self, count: int, parameters: list[Tensor], future: Future[Tensor]) -> None:
        self.count, self.parameters, self.future = count, parameters, future

    def zeros(self) -> Tensor:
        first = self.parameters[0]
        return torch.zeros(self.count, dtype=first.dtype, device=first.device)

    def assign(self, gradient: Tensor) -> None:
        """Make a flat gradient those of the parameters, which lie in a bucket by their own strides."""
        parts = gradient.split([each.numel() for each in self.parameters])
        for parameter, part in zip(self.parameters, parts, strict=True):
            parameter.grad = part.as_strided(parameter.shape, parameter.stride(), part.storage_offset()).clone()
