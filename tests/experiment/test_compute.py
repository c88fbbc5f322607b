"""How a run computes: autocast, memory format, compilation; recorded, shown, and held to when resuming."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from acclimate.core.storage import fingerprint
from acclimate.experiment import Results, read_record, run
from acclimate.experiment.compute import SWITCHES, Compute
from acclimate.experiment.report import report_html
from acclimate.experiment.rows import unpack_bits

ALL_OFF = dict.fromkeys(SWITCHES, "off")


class Telling(nn.Module):
    """Answers 1 where its product was in bfloat16, else 0."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = nn.BatchNorm2d(3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        product = self.linear(self.norm(x).mean((2, 3)))
        answer = torch.tensor([0.0, 1.0, 0.0] if product.dtype == torch.bfloat16 else [1.0, 0.0, 0.0])
        return answer + 0 * product.float()


@pytest.mark.parametrize("amp", [False, True])
def test_amp_answers_in_bfloat16(make_plan, tmp_path, amp: bool) -> None:
    plan = replace(make_plan("source", "bn", seeds=(0,), amp=amp), model=Telling().eval())
    record = run(plan, tmp_path / "run")
    labels = [batch.labels for batch in plan.stream(0)]
    for label in plan.methods:
        for row, truth in zip(record.grouped[label, 0], labels, strict=True):
            expected = (truth != int(amp)) & (truth >= 0)
            assert unpack_bits(row.wrong, row.samples).tolist() == expected.tolist()


def test_what_a_step_keeps_is_measured_as_it_is_run(make_plan, tmp_path) -> None:
    saved = {}
    for amp in (False, True):
        record = run(make_plan("tent", seeds=(0,), amp=amp), tmp_path / str(amp))
        saved[amp] = record.units[0].memory["saved"]
    assert saved[True] != saved[False]


def test_channels_last_holds_the_model_so(make_plan, tmp_path) -> None:
    plan = make_plan("source", "tent", seeds=(0,), channels_last=True)
    before = fingerprint(plan.model)
    assert not plan.model.conv.weight.is_contiguous(memory_format=torch.channels_last)
    record = run(plan, tmp_path / "run")
    assert plan.model.conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert record.header.model["fingerprint"] == before == fingerprint(plan.model)


def test_compile_compiles_what_answers_and_not_the_source(make_plan, tmp_path, monkeypatch) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda module: compiled.append(module))
    plan = make_plan("source", "tent", compile=True)
    run(plan, tmp_path / "on")
    assert len(compiled) == 4 and len(set(map(id, compiled))) == 4, "one for each method and seed"
    assert plan.model not in compiled
    run(replace(plan, compile=False), tmp_path / "off")
    assert len(compiled) == 4


@pytest.mark.parametrize("switch", SWITCHES)
def test_switches_are_recorded_and_shown(make_plan, tmp_path, monkeypatch, switch: str) -> None:
    monkeypatch.setattr(nn.Module, "compile", lambda module: None)
    record = run(make_plan("source", "bn", seeds=(0,), **{switch: True}), tmp_path / "run")
    assert record.header.environment | ALL_OFF | {switch: "on"} == record.header.environment
    assert f"<th>{switch.replace('_', ' ')}</th><td>on</td>" in report_html(Results.of(record))
    assert Compute(**{switch: True}).compute == f"cpu {switch}"


def test_a_run_is_resumed_only_as_it_was_computed(make_plan, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(nn.Module, "compile", lambda module: None)
    plan = make_plan("source", "bn", amp=True)
    run(plan, tmp_path / "run")
    for change, told in (
        ({"amp": False}, "amp differ"),
        ({"channels_last": True}, "channels_last differ"),
        ({"amp": False, "compile": True}, "amp, compile differ"),
    ):
        with pytest.raises(ValueError, match=told):
            run(replace(plan, **change), tmp_path / "run", resume=True)
    assert run(plan, tmp_path / "run", resume=True).complete


def test_a_record_from_before_there_were_switches_was_made_with_none(make_plan, tmp_path) -> None:
    plan = make_plan("source", "bn")
    path = run(plan, tmp_path / "run").path
    header, *rows = path.read_text().splitlines(keepends=True)
    told = json.loads(header)
    for name in SWITCHES:
        del told["environment"][name]
    path.write_text(json.dumps(told) + "\n" + "".join(rows))
    with pytest.raises(ValueError, match="amp differ"):
        run(replace(plan, amp=True), path.parent, resume=True)
    assert run(plan, path.parent, resume=True).complete
    assert "amp" not in read_record(path).header.environment
