"""Small diffusion transformers, trained here in minutes: real denoising where no other weights are at hand."""

from acclimate.fields.diffusion.tiny.model import NOTHING, cifar10_dit, digits_dit, tiny_dit
from acclimate.fields.diffusion.tiny.sampling import sample, start_noise
from acclimate.fields.diffusion.tiny.training import DIFFUSION, FlowRecipe, load_dit

__all__ = [
    "DIFFUSION",
    "NOTHING",
    "FlowRecipe",
    "cifar10_dit",
    "digits_dit",
    "load_dit",
    "sample",
    "start_noise",
    "tiny_dit",
]
