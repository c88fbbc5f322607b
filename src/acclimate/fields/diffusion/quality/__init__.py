"""How near images are to others: pixel by pixel, in what a classifier sees, and as a whole set."""

from acclimate.fields.diffusion.quality.frechet import frechet_distance
from acclimate.fields.diffusion.quality.judge import Judge
from acclimate.fields.diffusion.quality.pixels import psnr, ssim

__all__ = ["Judge", "frechet_distance", "psnr", "ssim"]
