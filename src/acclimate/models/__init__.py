"""Small source models, how they are trained, and the loading of any other."""

from acclimate.models.loading import BUILT_IN, load_model
from acclimate.models.residual import ResidualNet, cifar10_resnet20, digits_resnet
from acclimate.models.source import source_model
from acclimate.models.training import RECIPES, train
from acclimate.models.transformer import VisionTransformer, small_vit
from acclimate.models.weights import load_weights

__all__ = [
    "BUILT_IN",
    "RECIPES",
    "ResidualNet",
    "VisionTransformer",
    "cifar10_resnet20",
    "digits_resnet",
    "load_model",
    "load_weights",
    "small_vit",
    "source_model",
    "train",
]
