"""Delayed, compressed, error-feedback SGD as one optimiser per rank."""

from __future__ import annotations

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
from acclimate.fields.wide_area.replicas.agreement import described, fingerprint, hyperparameters, sampled, sealed
from acclimate.fields.wide_area.replicas.averaging import add_mean, opened
from acclimate.fields.wide_area.replicas.exchange import Exchange
from acclimate.fields.wide_area.replicas.gradients import FlatGradients, digest
from acclimate.fields.wide_area.replicas.memory import ErrorMemory
from acclimate.fields.wide_area.replicas.restoring import expect_messages, expect_same, or_as_before
from acclimate.fields.wide_area.replicas.scaling import scaled
from acclimate.fields.wide_area.replicas.steering import Steering, Wheel
from acclimate.fields.wide_area.replicas.watching import Watch
from acclimate.fields.wide_area.wire.entries import Entries
from acclimate.fields.wide_area.wire.packet import Packet
from acclimate.wire.faults import LinkFault
from acclimate.wire.transport import Transport

__all__ = ["DeCoSGD"]

_STATE = ("step", "of", "weights", "error", "queue", "base", "wheel", "estimator", "watch")
_PROBE_EVERY = 100
_SCHEDULED = (*range(10), 100, 1000)


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
        schedule: factor of the base optimiser's step sizes for message s; it counts messages, not iterations. It and
            a policy that is a function depend on nothing but their argument: both are asked for samples at the start.
        feedback: False forgets what is not sent.
        parity_every: every so many iterations the packets carry 8 bytes more, a digest of the weights, of the base
            optimiser's hyper-parameters and of the setting, which all ranks compare when they apply them; 0 never.
        curvature: whether a controller's guard is to estimate the loss's curvature, with two vectors more.
        estimator: of compute time, bandwidth and latency.

    What ranks compare: at the start the shapes and all arguments, of the base optimiser its kind and the
    hyper-parameters of each group, of the schedule its values for messages 0 to 9, 100 and 1000, of a policy its fields
    or, where it is a function, its first 32 settings. What differs only later, such as a learning rate that one rank's
    scheduler changes, is noticed where `parity_every` is not 0, and not at all otherwise.

    Batch-norm statistics are each rank's own: average them before an evaluation, or use group norms.

    When it fails: `LinkFault` (a rank died, hangs or differs, or bytes are damaged) leaves weights as they were; from
    then on every call raises. Start all ranks again from their checkpoints of one iteration. ValueError for gradients
    that are not finite; the other ranks then miss this one's message and stop at their timeout.

    Raises:
        ValueError: parameters that do not fit together, or an argument out of range.
        Disagreement: ranks with other shapes, arguments, optimisers, schedules or policies.
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
        self._meet(curvature)

    def _meet(self, curvature: bool) -> None:
        """Start equal: the same arguments, the weights of rank 0, and probes if there is something to decide."""
        transport = self._exchange.transport
        kind = {**self._of(), "rank": None, "parity_every": self._parity_every, "curvature": curvature}
        del kind["base"], kind["groups"]
        transport.agree(sealed(kind), "the model's shapes, the entries or other arguments")
        transport.agree(sealed([self._wheel.told(), self._wheel.state_dict()]), "the policy")
        base = [self._hyperparameters(), sampled(self._schedule, _SCHEDULED)]
        transport.agree(sealed(base), "the base optimiser, its hyper-parameters or the schedule")
        weights = self._gradients.weights()
        transport.share(weights)
        self._gradients.assign(weights)
        if self._wheel.controller is not None:
            self._exchange.probe(self._bytes)

    def _hyperparameters(self) -> dict[str, Any]:
        return hyperparameters(self.base, self._gradients.parameters)

    def _of(self) -> dict[str, Any]:
        """Whose a checkpoint is."""
        transport, groups = self._exchange.transport, self._hyperparameters()["groups"]
        return {
            "rank": transport.rank,
            "size": transport.size,
            "shapes": [list(each.shape) for each in self._gradients.parameters],
            "type": str(self._memory.vector.dtype),
            "entries": described(self._memory.entries),
            "feedback": self._memory.feedback,
            "base": type(self.base).__qualname__,
            "groups": [each["params"] for each in groups],
        }

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
        parity = self._parity() if due else None
        packet = Packet(self.step, indices, values, estimator.report(), parity, estimator.needs_probe)
        with self._faults():
            self._exchange.send(packet)
        seconds = transport.now() - self._started - (self._exchange.waited - self._waited)
        if seconds > 0:
            estimator.observe_compute(seconds)
        self.step += 1
        self._wheel.advance(self.step)
        self._inside = False

    def _parity(self) -> int:
        """Of what must be the same on all ranks at this iteration."""
        return fingerprint(digest(self._gradients.parameters), [self._hyperparameters(), described(self.setting)])

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
            "of": self._of(),
            "weights": self._gradients.weights(),
            "error": self._memory.vector.clone(),
            "queue": queue,
            "base": self.base.state_dict(),
            "wheel": self._wheel.state_dict(),
            "estimator": self._exchange.estimator.state_dict(),
            "watch": {"update": update, "moved": None if math.isnan(moved) else moved},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned on this rank; what is refused changes nothing.

        A `Setting`, or a function of iterations, is the one that was given here. A controller goes on as it was, and
        asks the policy that was given here at its next decision.

        Raises:
            ValueError: a state of another rank, number of ranks, model, base optimiser, entries or kind of policy.
            Disagreement: other ranks load another iteration or other weights.
        """
        self._expect(inside=False)
        self._check(state)
        with or_as_before(self._wheel, self._exchange.estimator, self.base):
            self._wheel.load_state_dict(state["wheel"])
            self._exchange.estimator.load_state_dict(state["estimator"])
            self.base.load_state_dict(state["base"])
            moved = state["watch"]["moved"]
            self._compare(state)
            self._wheel.advance(state["step"])
        self._gradients.assign(state["weights"].to(self._memory.vector.device))
        self._memory.vector.copy_(state["error"])
        if self._watch:
            self._watch.load(state["watch"]["update"], math.nan if moved is None else moved)
        self._exchange.refill([(each["number"], each["packets"]) for each in state["queue"]])
        self.step = state["step"]

    def _check(self, state: Mapping[str, Any]) -> None:
        expect_keys(state, _STATE, "DeCoSGD")
        of = self._of()
        expect_same(state["of"], of)
        vectors = {"weights": state["weights"], "error": state["error"], "update": state["watch"]["update"]}
        for name, vector in vectors.items():
            if vector is not None and tuple(vector.shape) != (self._count,):
                raise ValueError(f"{name} has {list(vector.shape)}, this model [{self._count}] parameters.")
        expect_messages(state["queue"], state["step"], of["size"], [self._count])

    def _compare(self, state: Mapping[str, Any]) -> None:
        """All ranks are to go on from one iteration, with the same weights, step sizes and messages under way."""
        queue = [[each["number"], digest(each["packets"])] for each in state["queue"]]
        told = [state["step"], digest([state["weights"]]), self._wheel.state_dict(), self._hyperparameters(), queue]
        with self._faults():
            what = "the iteration, weights, step sizes or messages of their checkpoints"
            self._exchange.transport.agree(sealed(told), what)

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
