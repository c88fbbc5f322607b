"""The same exchange as a communication hook, for scripts that use DistributedDataParallel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.futures import Future

from acclimate.core.config import whole
from acclimate.fields.wide_area.network.estimator import Estimator
from acclimate.fields.wide_area.policy.conditions import Setting
from acclimate.fields.wide_area.policy.controller import FALLBACK
from acclimate.fields.wide_area.policy.guard import Guard
from acclimate.fields.wide_area.policy.state import expect_keys
from acclimate.fields.wide_area.replicas.agreement import described, fingerprint, sealed
from acclimate.fields.wide_area.replicas.averaging import add_mean, opened
from acclimate.fields.wide_area.replicas.exchange import Exchange
from acclimate.fields.wide_area.replicas.gradients import digest
from acclimate.fields.wide_area.replicas.memory import ErrorMemory
from acclimate.fields.wide_area.replicas.pieces import Bucket, Piece, regrouped
from acclimate.fields.wide_area.replicas.restoring import expect_messages, expect_same, or_as_before
from acclimate.fields.wide_area.replicas.steering import Steering, Wheel
from acclimate.fields.wide_area.replicas.watching import Watch
from acclimate.fields.wide_area.wire.entries import Entries
from acclimate.fields.wide_area.wire.packet import Packet
from acclimate.wire.faults import LinkFault
from acclimate.wire.transport import Transport

if TYPE_CHECKING:
    from torch._C._distributed_c10d import GradBucket
    from torch.nn.parallel import DistributedDataParallel

__all__ = ["DelayedHook"]

_STATE = ("step", "of", "weights", "pieces", "errors", "queue", "wheel", "estimator")
_PROBE_EVERY = 100


class DelayedHook:
    """Lets `DistributedDataParallel` train as `DeCoSGD` does, with the optimiser of the script as it is [S: 9.3].

    One line more: `DelayedHook(model, transport=GlooTransport(), policy=Setting(2, 0.05))` after the model was wrapped.
    Each bucket of gradients has an error memory and a packet of its own. What comes out of backward in iteration s is
    the mean message of iteration s - tau, so weights follow the same recurrence; waiting happens in backward. Once tau
    falls, several messages come out as their sum, in one step; once it rises, zeros do.

    Arguments:
        model: wrapped; the hook registers itself. Not for no_sync, unused parameters, or a static graph.
        transport, policy, entries, estimator: as for `DeCoSGD`.
        parity_every: every so many iterations ranks compare a digest of the weights and of the setting; 0 never.
        dense_iterations: the first ones exchange whole gradients at once, 1 or more. DDP cuts its buckets anew after
            the first; with 2 they are those that gradients are compressed in from then on.

    For tau iterations after these gradients are zero: an optimiser with momentum, weight decay or Adam's averages still
    makes steps, which `filling` tells how to leave out.

    The optimiser is the script's, which the hook does not see: ranks compare shapes, arguments and policy at the start,
    as for `DeCoSGD`, but optimisers that differ only show in the weights, with `parity_every`. Nor does a controller's
    guard see step sizes: it watches the norms of what is applied and halves the cap of staleness once they diverge. The
    step size, which `DeCoSGD` halves as well, is left to the script; `step_share` is 1/2 from then on.

    When it fails: backward raises `LinkFault` as `DeCoSGD.begin` does, or ValueError for gradients that are not finite.
    What was sent of that iteration cannot be taken back, so that every later call raises `LinkFault`, and so does the
    model's next forward unless under no_grad. Start all ranks again from their checkpoints of one iteration. Where DDP
    cuts its buckets anew once gradients are compressed, as it does after a checkpoint was loaded, they are exchanged in
    the pieces that there were before, which leaves nothing to overlap with backward in that iteration.

    Raises:
        ValueError: an argument out of range, or a controller whose guard is another than `Guard()`: its curvature or
            reference would need step sizes.
        Disagreement: ranks with other shapes, arguments or policies.

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
        self._places = {id(each): place for place, each in enumerate(self._parameters)}
        self._bytes = dense_bytes = sum(each.numel() * each.itemsize for each in self._parameters)
        self._entries, self._dense, self._parity_every = entries or Entries(), dense_iterations, parity_every
        self._wheel = Wheel(policy, dense_bits=8.0 * dense_bytes)
        controller = self._wheel.controller
        if controller is not None:
            _expect_plain(controller.guard)
        self._watch = None if controller is None else Watch(controller, curvature=False)
        self._exchange = Exchange(transport, estimator or Estimator())
        self._memories: list[ErrorMemory] = []
        self._pieces: list[Piece] = []
        self._buckets: list[Bucket] = []
        self._sent, self._turns, self._cutting = 0, 0, True
        self.step, self.filling = 0, False
        self._ended, self._waited = transport.now(), 0.0
        self._fault: Exception | None = None
        self._meet()

        def run(state: object, bucket: Any) -> Any:
            with self._faults():
                return self._arrived(bucket)

        run.__annotations__.clear()  # torch compares annotations with its types, and would find their names only
        model.register_comm_hook(None, run)
        model.register_forward_pre_hook(lambda *_: self._expect_sound() if torch.is_grad_enabled() else None)

    def _meet(self) -> None:
        """Ranks have the same arguments; probes if there is something to decide."""
        transport = self._exchange.transport
        kind = {**self._of(), "rank": None, "dense": self._dense, "parity_every": self._parity_every}
        transport.agree(sealed(kind), "the model's shapes, the entries or other arguments")
        transport.agree(sealed([self._wheel.told(), self._wheel.state_dict()]), "the policy")
        if self._wheel.controller is not None:
            self._exchange.probe(self._bytes)

    def _of(self) -> dict[str, Any]:
        """Whose a checkpoint is."""
        transport = self._exchange.transport
        return {
            "rank": transport.rank,
            "size": transport.size,
            "shapes": [list(each.shape) for each in self._parameters],
            "types": [str(each.dtype) for each in self._parameters],
            "entries": described(self._entries),
        }

    @property
    def setting(self) -> Setting:
        """In force at this iteration."""
        return self._wheel.setting

    @property
    def step_share(self) -> float:
        """What a controller's guard would multiply the step size with: 1/2 after divergence."""
        return self._wheel.step_share

    @property
    def in_flight(self) -> list[int]:
        """Iterations whose messages are under way."""
        return [number for number, _ in groupby(self._exchange.numbers)]

    def _arrived(self, bucket: GradBucket) -> Future[Tensor]:
        """Send a bucket's gradients, now or with the last one; with that one, give out what is due."""
        buffer, index = bucket.buffer(), bucket.index()
        if index == 0:
            self._buckets, self._sent = [], 0
            # the buckets of the first iteration after a checkpoint are not yet those that DDP keeps
            late = self._turns == 1 < self._dense and not self._memories
            self._cutting = self.step < self._dense or late
            if self._cutting:
                self._pieces = []
            self._turns += 1
        future: Future[Tensor] = Future(devices=[buffer.device] if buffer.is_cuda else None)
        places = [self._places[id(each)] for each in bucket.parameters()]
        piece = Piece(places, [self._parameters[place] for place in places])
        self._buckets.append(Bucket(piece, buffer, future))
        if self._cutting:
            self._pieces.append(piece)
        if self._sent == index < len(self._pieces) and self._pieces[index].places == places:
            self._send(buffer)
        if bucket.is_last():
            self._send_rest()
            self._finish()
        return future

    def _send_rest(self) -> None:
        """Pieces that are no bucket of this iteration's."""
        rest = self._pieces[self._sent :]
        for gradient in regrouped([(each.piece, each.buffer) for each in self._buckets], rest):
            self._send(gradient)

    def _send(self, gradient: Tensor) -> None:
        """The next piece of this iteration's gradient."""
        index = self._sent
        indices, values = (None, gradient) if self.step < self._dense else self._compressed(index, gradient)
        parity = self._parity_every > 0 and index == 0 and self.step % self._parity_every == 0
        told = fingerprint(digest(self._parameters), described(self.setting)) if parity else None
        estimator = self._exchange.estimator
        self._exchange.send(Packet(self.step, indices, values, estimator.report(), told, estimator.needs_probe))
        self._sent += 1

    def _compressed(self, index: int, gradient: Tensor) -> tuple[Tensor | None, Tensor]:
        if index == len(self._memories):
            self._memories.append(ErrorMemory(gradient.numel(), self._entries, gradient.dtype, gradient.device))
        return self._memories[index].compress(gradient, self.setting.ratio)

    def _finish(self) -> None:
        """Give every bucket the sum of what is due, once all pieces are sent."""
        staleness = 0 if self.step < self._dense else self.setting.staleness
        sums: list[Tensor] = []
        packets: list[Packet] = []
        while (numbers := self.in_flight) and numbers[0] <= self.step - staleness:
            means, packets = self._oldest(numbers[0])
            sums = [total + mean for total, mean in zip(sums, means, strict=True)] if sums else means
        self.filling = not sums
        now, waited = self._exchange.transport.now(), self._exchange.waited
        if now - self._ended > waited - self._waited:
            self._exchange.estimator.observe_compute(now - self._ended - (waited - self._waited))
        self._ended, self._waited = now, waited
        if packets:
            self._wheel.observe(self.step, [each.report for each in packets])
            if self._wheel.controller is not None and any(each.wants_probe for each in packets):
                self._exchange.probe(self._bytes, self.step, _PROBE_EVERY)
        self._exchange.estimator.pieces = max(1, len(self._pieces))
        self.step += 1
        self._wheel.advance(self.step)
        given = zip(self._pieces, sums or [each.zeros() for each in self._pieces], strict=True)
        for bucket, total in zip(
            self._buckets, regrouped(list(given), [each.piece for each in self._buckets]), strict=True
        ):
            bucket.future.set_result(total)

    def _oldest(self, number: int) -> tuple[list[Tensor], list[Packet]]:
        """Means of the oldest message for every piece, and the last piece's packets."""
        means: list[Tensor] = []
        packets: list[Packet] = []
        for piece in self._pieces:
            packets = opened(self._exchange.receive(), number, piece.count)
            self._exchange.done()
            means.append(add_mean(packets, piece.zeros()))
        if self._watch is not None and number >= self._dense:  # dense ones are another kind of update
            self._watch.applied(0.0, torch.cat(means), None, None)
        return means, packets

    def drain(self, step: Callable[[], object]) -> int:
        """Apply the messages under way, in order, and say how many.

        Arguments:
            step: such as `optimizer.step`; called after the gradients of each message were put in place.

        Raises:
            LinkFault: as in backward, within the timeout, never later; or backward had failed.
        """
        self._expect_sound()
        numbers = self.in_flight
        for number in numbers:
            with self._faults():
                means = self._oldest(number)[0]
            for piece, mean in zip(self._pieces, means, strict=True):
                piece.assign(mean)
            step()
        return len(numbers)

    def state_dict(self) -> dict[str, Any]:
        """This rank's state after an optimiser's step; waits for the messages under way, which it holds, of all ranks.

        All ranks save after the same iteration, and beside it the model and the optimiser by their own `state_dict`;
        of the weights it has a digest only. Tensors and JSON values.
        """
        with self._faults():
            queue = [{"number": number, "packets": packets} for number, packets in self._exchange.content()]
        return {
            "step": self.step,
            "of": self._of(),
            "weights": digest(self._parameters),
            "pieces": [list(each.places) for each in self._pieces],
            "errors": [each.vector.clone() for each in self._memories],
            "queue": queue,
            "wheel": self._wheel.state_dict(),
            "estimator": self._exchange.estimator.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned on this rank, once the model has the weights of that moment.

        Bit for bit where settings are fixed. The first backward afterwards, before which DDP has not cut its buckets
        anew, exchanges the pieces that there were. What is refused changes nothing.

        Raises:
            ValueError: a state of another rank, number of ranks, model, other weights, entries or kind of policy.
            Disagreement: other ranks load another iteration or other weights.
        """
        self._expect_sound()
        expect_keys(state, _STATE, "DelayedHook")
        of = self._of()
        expect_same(state["of"], of)
        if state["weights"] != digest(self._parameters):
            raise ValueError(
                "the model has other weights than when the hook's state was taken. Load the state of the model, taken "
                "at the same moment, before that of the hook."
            )
        pieces, memories = self._restored(state["pieces"], state["errors"])
        expect_messages(state["queue"], state["step"], of["size"], [each.count for each in pieces])
        with or_as_before(self._wheel, self._exchange.estimator):
            self._wheel.load_state_dict(state["wheel"])
            self._exchange.estimator.load_state_dict(state["estimator"])
            self._compare(state)
            self._wheel.advance(state["step"])
        self._pieces, self._memories = pieces, memories
        self._exchange.estimator.pieces = max(1, len(pieces))
        self._exchange.refill([(each["number"], each["packets"]) for each in state["queue"]])
        self.step, self.filling = state["step"], False
        self._ended, self._waited = self._exchange.transport.now(), self._exchange.waited

    def _restored(
        self, saved: Sequence[Sequence[int]], errors: Sequence[Tensor]
    ) -> tuple[list[Piece], list[ErrorMemory]]:
        """Pieces and their error memories, checked against this model."""
        places = [place for each in saved for place in each]
        if sorted(places) != list(range(len(self._parameters)) if places else []) or len(errors) > len(saved):
            raise ValueError("the state of the hook is cut into pieces of other parameters than this model has.")
        pieces = [Piece(each, [self._parameters[place] for place in each]) for each in saved]
        memories: list[ErrorMemory] = []
        for piece, error in zip(pieces, errors, strict=False):
            if tuple(error.shape) != (piece.count,):
                raise ValueError(f"an error memory has {list(error.shape)} entries, this model's piece {piece.count}.")
            zeros = piece.zeros()
            memory = ErrorMemory(piece.count, self._entries, zeros.dtype, zeros.device)
            memory.vector.copy_(error)
            memories.append(memory)
        return pieces, memories

    def _compare(self, state: Mapping[str, Any]) -> None:
        """All ranks are to go on from one iteration, with the same weights, pieces and messages under way."""
        queue = [[each["number"], digest(each["packets"])] for each in state["queue"]]
        told = [state["step"], state["weights"], state["pieces"], self._wheel.state_dict(), queue]
        with self._faults():
            self._exchange.transport.agree(sealed(told), "the iteration, weights or messages of their checkpoints")

    def _expect_sound(self) -> None:
        fault = self._fault
        if fault is not None:
            kind = type(fault) if isinstance(fault, LinkFault) else LinkFault
            raise kind(f"an earlier fault ended this run: {fault}") from fault

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Let every later call raise what is raised inside."""
        self._expect_sound()
        try:
            yield
        except Exception as fault:
            self._fault = fault
            raise


def _expect_plain(guard: Guard) -> None:
    """ValueError for a guard that was given anything."""
    plain = Guard()
    plain.load_state_dict(guard.state_dict())
    if described(guard) != described(plain):
        raise ValueError(
            "found a controller whose guard was given a curvature, share or reference; DelayedHook does not know step "
            "sizes, and could not keep to it. Leave guard= out, or train with DeCoSGD."
        )
