from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor, nn

from acclimate.models.judged import JudgedRun
from acclimate.models.run import Run, carry_out

JUDGED = [0.2, 0.5, 0.4, 0.5, 0.3, 0.9]


class Stopped(Exception):
    pass


def run(model: nn.Linear, seen: list[Tensor], *, patience: int, stop: int | None = None, done: int = 0) -> JudgedRun:
    x = torch.randn(12, 2, generator=Generator().manual_seed(0))

    def step(index: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        return model(x[index]).square().mean(), torch.tensor(0.0)

    def judge() -> float:
        seen.append(model.weight.detach().clone())
        if len(seen) == stop:
            raise Stopped
        return JUDGED[done + len(seen) - 1]

    return JudgedRun(
        "line", model, torch.optim.Adam(model.parameters(), lr=0.1), step, lambda number, steps: 0.1,
        count=12, batch_size=4, epochs=6, seed=0, judge=judge, patience=patience,
    )  # fmt: skip


def line() -> nn.Linear:
    model = nn.Linear(2, 1)
    nn.init.constant_(model.weight, 2.0)
    nn.init.constant_(model.bias, 1.0)
    return model


@pytest.mark.parametrize(("patience", "epochs", "best"), [(1, 3, 1), (3, 5, 1), (4, 6, 5)])
def test_the_best_epoch_is_kept_and_training_ends(tmp_path: Path, patience: int, epochs: int, best: int) -> None:
    model, seen = line(), list[Tensor]()
    carry_out(run(model, seen, patience=patience), tmp_path / "m.safetensors", {"training": "t"})
    assert len(seen) == epochs
    assert torch.equal(model.weight, seen[best]) and not torch.equal(
        seen[best], seen[-1] if best < epochs - 1 else seen[0]
    )


def test_an_interrupted_run_ends_as_one_that_was_not(tmp_path: Path) -> None:
    whole, seen = line(), list[Tensor]()
    carry_out(run(whole, seen, patience=3), tmp_path / "whole.safetensors", {"training": "t"})
    broken = run(line(), [], patience=3, stop=4)
    with pytest.raises(Stopped):
        carry_out(broken, tmp_path / "part.safetensors", {"training": "t"})
    again, later = line(), list[Tensor]()
    carry_out(run(again, later, patience=3, done=3), tmp_path / "part.safetensors", {"training": "t"})
    assert len(later) == 2 and torch.equal(again.weight, whole.weight) and torch.equal(again.weight, seen[1])
    assert (tmp_path / "part.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


def test_patience_is_at_least_one() -> None:
    with pytest.raises(ValueError, match="patience is 0"):
        run(line(), [], patience=0)


@pytest.mark.filterwarnings("ignore:for .*no-op")
def test_a_fused_optimiser_has_its_step_count_on_the_device() -> None:
    model = nn.Linear(2, 1, device="meta")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.param_groups[0]["fused"] = True
    again = Run("line", model, optimizer, lambda *_: (torch.zeros(()),) * 2, lambda *_: 0.1,
                count=2, batch_size=1, epochs=1, seed=0)  # fmt: skip
    tensors = {f"model.{name}": torch.zeros(value.shape) for name, value in model.state_dict().items()}
    again.restore({**tensors, "step.weight": torch.tensor(3.0)})
    assert optimizer.state[model.weight]["step"].device.type == "meta"
