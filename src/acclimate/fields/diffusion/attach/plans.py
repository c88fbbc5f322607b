"""The transformers that can be compacted, by the name of their class."""

from __future__ import annotations

from torch import nn

from acclimate.fields.diffusion.attach.cogvideox import COGVIDEOX
from acclimate.fields.diffusion.attach.flux import FLUX
from acclimate.fields.diffusion.attach.patches import DIT, PIXART
from acclimate.fields.diffusion.attach.plan import Plan
from acclimate.fields.diffusion.attach.sd3 import SD3

__all__ = ["PLANS", "plan_of"]

PLANS = {plan.transformer: plan for plan in (DIT, PIXART, SD3, FLUX, COGVIDEOX)}
"""By name of the class."""


def plan_of(transformer: nn.Module) -> Plan:
    """The plan for a transformer, by its class or one it derives from.

    Raises:
        ValueError: there is none.

    >>> plan_of(nn.Linear(1, 1))
    Traceback (most recent call last):
    ...
    ValueError: There is no plan for Linear; expected a DiTTransformer2DModel, PixArtTransformer2DModel, \
SD3Transformer2DModel, FluxTransformer2DModel or CogVideoXTransformer3DModel of diffusers.
    """
    for kind in type(transformer).__mro__:
        if kind.__name__ in PLANS:
            return PLANS[kind.__name__]
    *others, last = PLANS
    inside = " Give pipeline.transformer." if hasattr(transformer, "transformer") else ""
    raise ValueError(
        f"There is no plan for {type(transformer).__name__}; expected a {', '.join(others)} or {last} of diffusers."
        f"{inside}"
    )
