"""Forms of the dependence on staleness and ratio, on counts made by each of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from acclimate.fields.wide_area.policy.contraction import contraction
from acclimate.fields.wide_area.policy.noise import NOISE
from acclimate.fields.wide_area.reproduction import interaction as module
from acclimate.fields.wide_area.reproduction.interaction import RATIOS, STALENESSES, amplification, unexplained

DELAY, COMPRESSION = np.array([[100.0, 120, 150, 220, 400]]).T, np.array([[100.0, 130, 180, 260, 500]])


@pytest.mark.parametrize(("made", "by"), [(DELAY + COMPRESSION - 100, "sum"), (DELAY * COMPRESSION / 100, "product")])
def test_counts_of_a_form_are_explained_by_it_alone(made: np.ndarray, by: str) -> None:
    errors = unexplained(made)
    assert errors[by] == pytest.approx(0, abs=1e-12)
    assert all(error > 0.05 for name, error in errors.items() if name != by)


@pytest.mark.parametrize("name", NOISE)
def test_counts_of_a_noise_factor_are_explained_by_it(name: str) -> None:
    made = np.array([[90 + 3 * NOISE[name](contraction(r), s) for r in RATIOS] for s in STALENESSES])
    assert unexplained(made)[f"phi {name}"] == pytest.approx(0, abs=1e-6)


def test_amplification_is_told_where_both_are_largest() -> None:
    made = DELAY * COMPRESSION / 100
    made[4, 4] *= 1.7
    assert amplification(made) == pytest.approx(1.7)
    made[4, 4] = np.nan
    assert amplification(made) == pytest.approx(1.0)


def test_what_is_shown_comes_from_fixed_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STALENESSES", (0, 2))
    monkeypatch.setattr(module, "RATIOS", (1.0, 0.004))
    shown = module.interaction(tmp_path, rates=(0.2,), seeds=(0,), limit=1500)
    counts = [[float(str(cell)) for cell in line.cells] for line in shown.grids[0].lines]
    assert counts[1][0] > counts[0][0] and counts[0][1] > counts[0][0]
    assert "product" in shown.notes[0] and len(shown.drawings) == 1
