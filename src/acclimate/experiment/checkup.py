"""What each method would do to a model, without a stream."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from acclimate import Adapted, adapt
from acclimate.anatomy import batch_norms, norm_layers
from acclimate.core.memory import policies
from acclimate.core.method import methods

__all__ = ["Checkup", "check", "risk_of_one"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkup:
    """One method on one model: what adapts and what it keeps in bytes, or the reason why it cannot.

    `saved` and `predicted` are bytes kept for the backward pass of one step, measured and extrapolated from
    smaller batches, `stock` what PyTorch alone would have kept; None where no images were given.
    """

    method: str
    tensors: int = 0
    parameters: int = 0
    share: float = 0.0
    state: int = 0
    saved: int | None = None
    predicted: int | None = None
    stock: int | None = None
    remark: str = ""
    reason: str | None = None


def check(model: nn.Module, images: Tensor | None = None, policy: str | None = None) -> list[Checkup]:
    """Every registered method with its defaults; with images each of them takes a step, which is undone.

    `policy`: how backward keeps what it needs, instead of each method's own choice. ValueError for an unknown one.
    """
    if policy is not None:
        policies.build(policy)
    return [_check(model, name, images, policy) for name in methods.classes()]


def _check(model: nn.Module, name: str, images: Tensor | None, policy: str | None) -> Checkup:
    try:
        adapted = adapt(model, name, memory=policy, guard=None)
        if images is not None:
            adapted(images)
        memory = adapted.memory() if images is None or len(images) < 4 else adapted.memory(images)
    except ValueError as error:
        return Checkup(method=name, reason=" ".join(str(error).split()))
    weights = adapted.state.weights.values()
    total = sum(parameter.numel() for parameter in model.parameters())
    chosen = sum(weight.numel() for weight in weights)
    return Checkup(
        method=name,
        tensors=len(adapted.state.weights),
        parameters=chosen,
        share=chosen / total if total else 0.0,
        state=sum(memory.state.values()),
        saved=memory.saved,
        predicted=memory.predicted,
        stock=memory.stock,
        remark=_remark(adapted),
    )


def _remark(adapted: Adapted) -> str:
    report = adapted.last
    if report is not None and report.reason is not None:
        return f"learned nothing from random images: {report.reason}"
    if adapted.state.layers:
        return f"replaces the statistics of {len(adapted.state.layers)} batch norm layers"
    return ""


def risk_of_one(model: nn.Module) -> str:
    """What happens to this model when images come one at a time, in words."""
    batch, every = len(batch_norms(model)), len(norm_layers(model))
    if batch:
        return (
            f"a risk. {batch} of {every} normalisation layers are batch norms, and one image's statistics stand in for "
            "a batch's. Mix in the source's with --normalization alpha, or collect images into batches."
        )
    if every:
        return f"safe. All {every} normalisation layers work image by image."
    return "safe. There are no normalisation layers, so methods that adapt them have nothing to adapt."
