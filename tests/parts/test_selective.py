"""Running only the chosen rows again gives what the whole batch with a mask gives, for less."""

from __future__ import annotations

import pytest
import torch

import acclimate
from acclimate.core.inputs import Call
from acclimate.functional import entropy, filtered_mean
from acclimate.methods.eta import ETA
from acclimate.parts.selective import answer, rows_to_learn, with_graph
from methods.selected import Counted, batch_net, group_net, uneven

SETTINGS = {"learning_rate": 1e-2, "margin": 0.75, "diversity": 0.97}
CASES = {
    "group_norm": (group_net, "batch"),
    "batch_norm by source": (batch_net, "source"),
    "batch_norm by ema": (batch_net, "ema"),
}
"""Models whose answers to a row depend on no other."""


@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradients_are_those_of_the_masked_batch(case):
    make, normalization = CASES[case]
    x = uneven(1)[0]
    chosen = torch.arange(len(x)) % 3 == 1
    weight = torch.rand(len(x), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = []
    for share in (0.0, 1.0):
        state = acclimate.adapt(make(), ETA(normalization=normalization)).state
        state["selected_share"].fill_(share)
        state.begin(Call((x,), {}, 0))
        logits = answer(state, x)
        assert logits.requires_grad == (share == 1.0)
        rows = rows_to_learn(state, chosen)
        loss = filtered_mean(weight[rows] * entropy(with_graph(state, x, logits, rows)), chosen[rows])
        found.append((float(loss.detach()), state.gradients(loss), logits.detach()))
        assert float(state["selected_share"]) == pytest.approx(4 / 12)
    masked = (weight * entropy(found[0][2]) * chosen).sum() / 4
    assert found[0][0] == pytest.approx(float(masked), abs=1e-14)
    assert found[1][0] == pytest.approx(float(masked), abs=1e-14)
    for few, whole in zip(found[0][1].values(), found[1][1].values(), strict=True):
        assert torch.allclose(few, whole, rtol=0, atol=1e-13)
        assert few.abs().sum() > 0


@pytest.mark.parametrize("case", CASES)
def test_forwards_are_one_and_the_chosen_share(case):
    """1 + p forwards, those of the chosen rows with a graph; after a batch of half or more: one with a graph."""
    make, normalization = CASES[case]
    net = Counted(make())
    adapted = acclimate.adapt(net, ETA(normalization=normalization, **SETTINGS))
    observed = [(12, False)] if normalization == "ema" else []
    share, ways = 0.0, set()
    for x in uneven(8):
        net.rows.clear()
        adapted(x)
        chosen = int(adapted.last.selected)
        if share >= 0.5:
            assert net.rows == [*observed, (12, True)]
            assert adapted.last.backwards == (1 if chosen else 0)
            ways.add("whole")
        elif chosen:
            assert net.rows == [*observed, (12, False), (chosen, True)]
            assert adapted.last.forwards == pytest.approx(len(observed) + 1 + chosen / 12)
            ways.add("rows")
        else:
            assert net.rows == [*observed, (12, False)]
            assert adapted.last.backwards == 0
            ways.add("none")
        share = chosen / 12 if chosen else share
    assert "rows" in ways


def test_both_ways_occur():
    """From half of the rows on the next batch takes the graph at once, and goes back when fewer are chosen."""
    net = Counted(group_net())
    adapted = acclimate.adapt(net, ETA(margin=0.75, diversity=1.0))
    for share, expected in ((0.49, False), (0.5, True), (1.0, True), (0.0, False)):
        adapted.state["selected_share"].fill_(share)
        net.rows.clear()
        adapted(uneven(1)[0])
        assert net.rows[0] == (12, expected)


def test_other_inputs_of_the_call_follow_their_rows():
    """A model with a number for each row beside the image: the rows that are run again keep theirs."""

    class Scaled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = group_net()

        def forward(self, x, scale):
            return self.net(x) * scale[:, None]

    few, whole = (acclimate.adapt(Scaled(), ETA(**SETTINGS)) for _ in range(2))
    scale = torch.linspace(0.5, 2.0, 12, dtype=torch.float64)
    for x in uneven(4):
        few.state["selected_share"].fill_(0.0)
        whole.state["selected_share"].fill_(1.0)
        assert torch.allclose(few(x, scale), whole(x, scale), rtol=0, atol=1e-12)
    assert few.last.forwards > 1
    assert whole.last.forwards == 1


def test_batch_statistics_keep_one_masked_forward():
    net = Counted(batch_net())
    adapted = acclimate.adapt(net, ETA(**SETTINGS))
    for x in uneven(4):
        net.rows.clear()
        adapted(x)
        assert net.rows == [(12, True)]
        assert adapted.last.backwards == 1


def test_the_way_does_not_change_what_is_learned():
    few, whole = (acclimate.adapt(group_net(), ETA(**SETTINGS)) for _ in range(2))
    for x in uneven(6):
        few.state["selected_share"].fill_(0.0)
        whole.state["selected_share"].fill_(1.0)
        assert torch.allclose(few(x), whole(x), rtol=0, atol=1e-12)
    for ours, theirs in zip(few.state.weights.values(), whole.state.weights.values(), strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-12)
    assert few.last.distance > 0
