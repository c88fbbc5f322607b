"""What is decided is done to the state, to the bit: going back, undoing, several guards at once."""

from __future__ import annotations

from awake import Scripted
from quick import adapt, batch, learned, unguarded, weights

from acclimate.core.guard import Chain, Judgement
from acclimate.guard.sar import SARGuard
from acclimate.methods.tent import Tent
from conformance.tools import assert_same, bits


def test_a_good_state_is_gone_back_to_bit_for_bit() -> None:
    """Good after the second batch, back after the fourth; before anything was good, back is the source."""
    _, held = unguarded(4)
    adapted = adapt(Scripted(script={1: Judgement(good=True), 3: Judgement(recover=True)}))
    for number in range(3):
        adapted(batch(number))
    assert_same(list(weights(adapted).values()), list(held[3].values()), "weights before going back")
    adapted(batch(3))
    assert_same(list(weights(adapted).values()), list(held[2].values()), "weights after going back")
    early = adapt(Scripted(script={1: Judgement(recover=True)}))
    early(batch(0)), early(batch(1))
    assert_same(learned(early), learned(adapt(None)), "state where nothing was good")


def test_an_undone_step_is_as_if_it_had_not_been_and_what_else_is_decided_holds() -> None:
    """Undoing does not undo forgetting, recovering or what is called good: they are about the state before the step."""
    _, held = unguarded(3)
    names = list(held[0])
    undone = adapt(Scripted(script={1: Judgement(learn=False)}))
    without = adapt(None)
    for number in (0, 1, 2):
        undone(batch(number))
    for number in (0, 2):
        without(batch(number))
    assert_same(learned(undone), learned(without), "state without the undone step")
    partly = adapt(Scripted(script={1: Judgement(learn=False, forget=0.5)}))
    good = adapt(Scripted(script={1: Judgement(learn=False, good=True), 2: Judgement(learn=False, recover=True)}))
    both = adapt(Scripted(script={0: Judgement(good=True), 1: Judgement(recover=True, forget=0.5)}))
    every = adapt(
        Scripted(script={0: Judgement(good=True), 1: Judgement(recover=True, forget=1.0), 2: Judgement(recover=True)})
    )
    for number in range(2):
        for adapted in (partly, good, both, every):
            adapted(batch(number))
    for adapted in (partly, both):
        for name, weight in weights(adapted).items():
            assert bits(weight) == bits(held[0 if name in names[len(names) // 2 :] else 1][name]), name
    good(batch(2)), every(batch(2))
    assert_same(list(weights(good).values()), list(held[1].values()), "what was good when its step was undone")
    assert_same(learned(every), learned(adapt(None)), "nothing is good once all is forgotten")


def test_going_back_from_afar_is_no_explosion() -> None:
    """Weights that lie more than half their norm away from the source can still be forgotten."""
    for forget in (1.0, 0.9):
        adapted = adapt(Scripted(script={12: Judgement(forget=forget)}), Tent(learning_rate=0.2))
        for number in range(12):
            adapted(batch(number % 3))
        assert adapted.last.distance > 0.6
        adapted(batch(0))
        assert adapted.tally["forgotten"] == 1 and adapted.last.distance < 0.3


def test_a_chain_is_as_careful_as_the_most_careful() -> None:
    """Both forget what each forgets, and a guard that keeps nothing has no say in what is good."""
    _, held = unguarded(2)
    script = Scripted(script={0: Judgement(good=True), 1: Judgement(recover=True)})
    adapted = adapt(Chain(members=(SARGuard(recovery=0.0), script)))
    for number in range(2):
        adapted(batch(number))
    assert_same(list(weights(adapted).values()), list(held[1].values()), "the good state")
    parts = (Judgement(hold=True, shrink=0.5, forget=0.2, reason="a"), Judgement(learn=False, shrink=0.1, reason="b"))
    found = parts[0].beside(parts[1])
    assert (found.hold, found.learn, found.shrink, found.forget, found.reason) == (True, False, 0.1, 0.2, "a; b")
