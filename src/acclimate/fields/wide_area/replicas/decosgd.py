"""Delayed, compressed, error-feedback SGD as one optimiser per rank."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from acclimate.core.config import whole
from acclimate.fields.wide_area.network.estimator import Estimator
from acclimate.fields.wide_area.policy.conditions import Setting
from acclimate.fields.wide_area.policy.controller import FALLBACK
from acclimate.fields.wide_area.policy.state import expect_keys
from acclimate.fields.wide_area.replicas.averaging import add_mean, opened
from acclimate.fields.wide_area.replicas.exchange import Exchange
from acclimate.fields.wide_area.replicas.gradients import FlatGradients, digest
from acclimate.fields.wide_area.replicas.memory import ErrorMemory
from acclimate.fields.wide_area.replicas.scaling import scaled
from acclimate.fields.wide_area.replicas.steering import Steering, Wheel
from acclimate.fields.wide_area.replicas.watching import Watch
from acclimate.fields.wide_area.wire.entries import Entries
from acclimate.fields.wide_area.wire.packet import Packet
from acclimate.wire.faults import LinkFault
from acclimate.wire.transport import Transport

__all__ = ["DeCoSGD"]

_STATE = ("step", "weights", "error", "queue", "base", "wheel", "estimator", "watch")
_PROBE_EVERY = 100


class DeCoSGD:
    """SGD over a slow network: what is sent is compressed, and applied some iterations later [S: 2.1].

    With staleness tau, n ranks, error memory e and `t = s + tau`:
    `D_s^i = C(e_s^i + g_s^i)`, `e_(s+1)^i = e_s^i + g_s^i - D_s^i`, `x_(t+1) = x_t - (gamma / n) sum_i D_s^i`.
    The mean of the messages goes to a base optimiser as its gradient, one step for each message, in their order; plain
    SGD is the analysed case, and momentum or Adam narrow what staleness is stable. Every rank applies the same numbers
    in the same order, so on equal machines replicas are equal to the bit. Tau and the ratio may change at any
    iteration: a message carries its own k, and tau only says how long to wait.

    >>> import torch
    >>> from acclimate.links.traces import constant
    >>> from acclimate.wire.simulated import world
    >>> (alone,) = world(1, [(constant(1e6), 0.1)])
    >>> layer = torch.nn.Linear(2, 1)
    >>> training = DeCoSGD(
    ...     layer.parameters(), lambda params: torch.optim.SGD(params, 0.1), transport=alone, policy=Setting(1, 1.0)
    ... )
    >>> for _ in range(3):
    ...     training.begin()
    ...     layer(torch.ones(1, 2)).sum().backward()
    ...     training.end()
    >>> training.applied, training.drain(), training.applied
    (1, 2, 3)

    Arguments:
        parameters: to train, of one type on one device; those of rank 0 are given to all ranks.
        base: makes the optimiser that applies messages, such as `lambda params: SGD(params, lr=0.1)`.
        transport: to the other ranks.
        policy: a `Setting` for good, a policy, a `Controller`, or the setting of each iteration as a function.
        entries: number and type of what is sent.
        schedule: factor of the base optimiser's step sizes for message s; it counts messages, not iterations.
        feedback: False forgets what is not sent.
        parity_every: every so many iterations the packets carry 8 bytes more, a digest of the weights, which all ranks
            compare when they apply them; 0 never.
        curvature: whether a controller's guard is to estimate the loss's curvature, with two vectors more.
        estimator: of compute time, bandwidth and latency.

    Batch-norm statistics are each rank's own: average them before an evaluation, or use group norms.

    When it fails: `LinkFault` (a rank died, hangs or differs, or bytes are damaged) leaves weights as they were; from
    then on every call raises. Start all ranks again from their checkpoints of one iteration. ValueError for gradients
    that are not finite; the other ranks then miss this one's message and stop at their timeout.

    Raises:
        ValueError: parameters that do not fit together, or an argument out of range.
        Disagreement: ranks with other shapes or arguments.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        base: Callable[[list[Tensor]], Optimizer],
        *,
        transport: Transport,
        policy: Steering = FALLBACK,
        entries: Entries | None = None,
        schedule: Callable[[int], float] | None = None,
        feedback: bool = True,
        parity_every: int = 0,
        curvature: bool = False,
        estimator: Estimator | None = None,
    ) -> None:
        whole(0, parity_every=parity_every)
        self._gradients = FlatGradients(parameters)
        vector = self._gradients.vector
        self._count, self._bytes = vector.numel(), vector.numel() * vector.itemsize
        self._memory = ErrorMemory(self._count, entries or Entries(), vector.dtype, vector.device, feedback=feedback)
        self.base = base(self._gradients.parameters)
        self._wheel = Wheel(policy, dense_bits=8.0 * self._bytes)
        controller = self._wheel.controller
        self._watch = None if controller is None else Watch(controller, curvature=curvature)
        self._exchange = Exchange(transport, estimator or Estimator())
        self._schedule, self._parity_every = schedule, parity_every
        self.step, self._inside = 0, False
        self._started = self._waited = 0.0
        self._fault: LinkFault | None = None
        self._meet()

    def _meet(self) -> None:
        """Start equal: the same arguments, the weights of rank 0, and probes if there is something to decide."""
        transport = self._exchange.transport
        kind = (self._count, self._memory.vector.dtype, self._memory.entries, self._memory.feedback, self._parity_every)
        told = f"{transport.size} {kind} {self._wheel.state_dict()}"
        transport.agree(hashlib.sha256(told.encode()).digest(), "the model's size, the entries or the policy")
        weights = self._gradients.weights()
        transport.share(weights)
        self._gradients.assign(weights)
        if self._wheel.controller is not None:
            self._exchange.probe(self._bytes)

    @property
    def setting(self) -> Setting:
        """In force at this iteration."""
        return self._wheel.setting

    @property
    def applied(self) -> int:
        """Messages applied so far, which is the number of base steps."""
        return self.step - len(self._exchange.numbers)

    @property
    def error(self) -> Tensor:
        """e, what this rank has not sent yet: `[d]`."""
        return self._memory.vector

    @property
    def in_flight(self) -> list[int]:
        """Iterations whose messages are under way."""
        return self._exchange.numbers

    @property
    def stalled(self) -> float:
        """Seconds spent waiting for messages, on the transport's clock."""
        return self._exchange.waited

    @property
    def sent_bits(self) -> int:
        """Bits that this rank has handed to its transport."""
        return self._exchange.sent_bits

    def begin(self) -> None:
        """Apply the messages that are due, `s' <= s - 1 - tau`, waiting for them, and zero the gradients.

        Raises:
            LinkFault: a message does not come or is not what it should be.
            RuntimeError: the iteration before was not ended.
        """
        self._expect(inside=False)
        self._started, self._waited = self._exchange.transport.now(), self._exchange.waited
        packets: list[Packet] = []
        while self._exchange.numbers and self._exchange.numbers[0] <= self.step - 1 - self.setting.staleness:
            packets = self._apply()
        if packets:
            self._wheel.observe(self.step, [each.report for each in packets])
            if self._wheel.controller is not None and any(each.wants_probe for each in packets):
                self._exchange.probe(self._bytes, self.step, _PROBE_EVERY)
        self._gradients.clear()
        self._inside = True

    def end(self) -> None:
        """Send what backward left in `.grad`, compressed; returns at once.

        Raises:
            ValueError: gradients that are not finite. Nothing was sent, and `end` may be called again.
            RuntimeError: the iteration was not begun.
        """
        self._expect(inside=True)
        indices, values = self._memory.compress(self._gradients.collect(), self.setting.ratio)
        due = self._parity_every > 0 and self.step % self._parity_every == 0
        estimator, transport = self._exchange.estimator, self._exchange.transport
        parity = digest(self._gradients.parameters) if due else None
        packet = Packet(self.step, indices, values, estimator.report(), parity, estimator.needs_probe)
        with self._faults():
            self._exchange.send(packet)
        seconds = transport.now() - self._started - (self._exchange.waited - self._waited)
        if seconds > 0:
            estimator.observe_compute(seconds)
        self.step += 1
        self._wheel.advance(self.step)
        self._inside = False

    def drain(self) -> int:
        """Apply all messages under way, and say how many; training may go on afterwards.

        Raises:
            LinkFault: as for `begin`; within the timeout, never later.
        """
        self._expect(inside=False)
        count = len(self._exchange.numbers)
        for _ in range(count):
            self._apply()
        self._gradients.clear()
        return count

    def _apply(self) -> list[Packet]:
        number = self._exchange.numbers[0]
        with self._faults():
            packets = opened(self._exchange.receive(), number, self._count)
        self._gradients.clear()
        update = add_mean(packets, self._gradients.vector)
        factor = (1.0 if self._schedule is None else self._schedule(number)) * self._wheel.step_share
        watch = self._watch
        before = self._gradients.weights() if watch and watch.needs_weights else None
        with scaled(self.base, factor):
            step_size = float(self.base.param_groups[0].get("lr", 0.0))
            self.base.step()
        if watch:
            watch.applied(step_size, update, before, None if before is None else self._gradients.weights())
        self._exchange.done()
        return packets

    def state_dict(self) -> dict[str, Any]:
        """This rank's state between two iterations; waits for the messages under way, which it holds, of all ranks.

        All ranks save after the same iteration. Tensors, and JSON values apart from the keys of the base optimiser.
        """
        self._expect(inside=False)
        with self._faults():
            queue = [{"number": number, "packets": packets} for number, packets in self._exchange.content()]
        update, moved = self._watch.tensors() if self._watch else (None, 0.0)
        return {
            "step": self.step,
            "weights": self._gradients.weights(),
            "error": self._memory.vector.clone(),
            "queue": queue,
            "base": self.base.state_dict(),
            "wheel": self._wheel.state_dict(),
            "estimator": self._exchange.estimator.state_dict(),
            "watch": {"update": update, "moved": None if math.isnan(moved) else moved},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned on this rank.

        Raises:
            ValueError: a state of another model or kind of policy.
            Disagreement: other ranks load another iteration or other weights.
        """
        self._expect(inside=False)
        expect_keys(state, _STATE, "DeCoSGD")
        for name in ("weights", "error"):
            if tuple(state[name].shape) != (self._count,):
                raise ValueError(f"{name} has {list(state[name].shape)}, this model [{self._count}] parameters.")
        self._wheel.load_state_dict(state["wheel"])
        self._gradients.assign(state["weights"].to(self._memory.vector.device))
        self._memory.vector.copy_(state["error"])
        self.base.load_state_dict(state["base"])
        self._exchange.estimator.load_state_dict(state["estimator"])
        if self._watch:
            moved = state["watch"]["moved"]
            self._watch.load(state["watch"]["update"], math.nan if moved is None else moved)
        self._exchange.refill([(each["number"], each["packets"]) for each in state["queue"]])
        self.step = state["step"]
        self._compare()

    def _compare(self) -> None:
        """All ranks are at one iteration, with the same weights and messages under way."""
        told = f"{self.step} {digest(self._gradients.parameters)} {self._wheel.state_dict()}"
        hashed = hashlib.sha256(told.encode())
        for number, packets in self._exchange.content():
            hashed.update(str(number).encode())
            for each in packets:
                hashed.update(each.numpy().data)
        what = "the iteration, weights or messages of their checkpoints"
        with self._faults():
            self._exchange.transport.agree(hashed.digest(), what)

    def _expect(self, *, inside: bool) -> None:
        if self._fault is not None:
            raise type(self._fault)(f"an earlier fault ended this run: {self._fault}") from self._fault
        if inside != self._inside:
            raise RuntimeError("call begin() first." if inside else "an iteration has begun; call end() first.")

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Let every later call raise what is raised inside."""
        try:
            yield
        except LinkFault as fault:
            self._fault = fault
            raise
