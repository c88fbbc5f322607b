"""Which methods are compared on CamVid under weather, with which settings, and where these come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from acclimate.core.method import Method
from acclimate.core.normalization import Normalization
from acclimate.experiment.reproduce.contenders import ALL, NONE, NORMS
from acclimate.fields.segmentation.views import StillViews
from acclimate.memory import SurgeonSavings
from acclimate.methods.bn import BN
from acclimate.methods.cotta import CoTTA
from acclimate.methods.source import Source
from acclimate.methods.surgeon import Surgeon
from acclimate.methods.tent import Tent
from acclimate.normalization.alpha import AlphaStatistics
from acclimate.streams.scenes import Scenes
from acclimate.streams.segments import suggest

__all__ = ["EQUAL", "ROWS", "SEVERITY", "Row", "chosen_rows", "confidence_threshold"]

SEVERITY = 1
"""Of the weather. This, the source's share in mixed statistics and all rates were chosen on the validation split."""

MIXED: Normalization = AlphaStatistics(source_weight=0.3)
"""Statistics of two images are poor, so the source's are mixed in."""

EQUAL = "static pruning"
"""The row that is to hold as much as the row "surgeon"."""

_GATE_IMAGES = 64
_VIEWS = 4


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the comparison: what makes its method, its group in the figure, and whether its gate is to be fitted."""

    make: Callable[[], Method]
    group: str
    gated: bool = False


def _surgeon(memory: str | SurgeonSavings, layers: str = "all") -> Surgeon:
    """Mean entropy of all pixels, without selection and views: so the rows differ in what backward keeps alone."""
    return Surgeon(
        memory=memory,
        layers=layers,
        learning_rate={"all": 3e-6, "norms": 1e-4}[layers],
        certain=False,
        consistency=0.0,
        normalization=MIXED,
    )


def _tent(normalization: str | Normalization) -> Tent:
    return Tent(learning_rate=1e-4, normalization=normalization)


def _cotta() -> CoTTA:
    return CoTTA(learning_rate=7.5e-6, copies=_VIEWS, views=StillViews(), normalization=MIXED)


_pruned = partial(SurgeonSavings, probe_keep=0.1)
"""One image of two is probed, which is no small part of the batch."""

ROWS: Mapping[str, Row] = {
    "source": Row(Source, NONE),
    "bn": Row(BN, NONE),
    "bn, alpha": Row(partial(BN, normalization=MIXED), NONE),
    "tent": Row(partial(_tent, "batch"), NORMS),
    "tent, alpha": Row(partial(_tent, MIXED), NORMS),
    "full tuning": Row(partial(_surgeon, "stock"), ALL),
    "checkpointing": Row(partial(_surgeon, "checkpointed"), ALL),
    "cotta": Row(_cotta, ALL, gated=True),
    "surgeon": Row(partial(_surgeon, _pruned()), ALL),
    "surgeon-bn": Row(partial(_surgeon, _pruned(), "norms"), NORMS),
    "surgeon without G": Row(partial(_surgeon, _pruned(gradient_importance=False)), ALL),
    "surgeon without M": Row(partial(_surgeon, _pruned(memory_importance=False)), ALL),
    EQUAL: Row(partial(_surgeon, _pruned(share=0.1)), ALL),
}
"""By label, in the order of the table."""


def chosen_rows(names: Sequence[str]) -> dict[str, Row]:
    """The rows of these labels in the order of the table, all of them where none is named.

    Raises:
        ValueError: a label that no row has.
    """
    for name in names:
        if name not in ROWS:
            raise ValueError(f"there is no row {name!r} in the comparison on CamVid. {suggest(name, tuple(ROWS))}")
    return {label: row for label, row in ROWS.items() if not names or label in names}


@torch.no_grad()
def confidence_threshold(model: nn.Module, scenes: Scenes, device: str = "cpu") -> float:
    """CoTTA's gate for a segmentation network: 5 % of clean images get a mean confidence lower than this plus 0.05.

    As `acclimate.methods.cotta.gate_threshold`, but the confidence is that of whole images, which the gate looks at.
    """
    count = min(_GATE_IMAGES, len(scenes))
    index = torch.arange(count) * len(scenes) // count
    sure = [
        model(scenes.read(part).to(device, torch.float32) / 255).softmax(1).amax(1).mean((1, 2)).cpu()
        for part in index.split(4)
    ]
    return max(0.0, round(float(torch.cat(sure).quantile(0.05)) - 0.05, 3))
