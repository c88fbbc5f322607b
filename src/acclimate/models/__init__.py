"""Source models, how they are trained, and the loading of any other."""

from acclimate.models.aggregated_residual import AggregatedResidualNet, resnext_29
from acclimate.models.bottleneck import BottleneckNet, resnet_50
from acclimate.models.loading import BUILT_IN, load_model
from acclimate.models.residual import ResidualNet, cifar10_resnet20, digits_resnet
from acclimate.models.segmenter import Segmenter, camvid_segmenter
from acclimate.models.source import source_model
from acclimate.models.training import RECIPES, train
from acclimate.models.transformer import VisionTransformer, cifar10_vit, digits_vit, small_vit
from acclimate.models.weights import load_weights
from acclimate.models.wide_residual import WideResidualNet, wrn_16_4, wrn_28_10

__all__ = [
    "BUILT_IN",
    "RECIPES",
    "AggregatedResidualNet",
    "BottleneckNet",
    "ResidualNet",
    "Segmenter",
    "VisionTransformer",
    "WideResidualNet",
    "camvid_segmenter",
    "cifar10_resnet20",
    "cifar10_vit",
    "digits_resnet",
    "digits_vit",
    "load_model",
    "load_weights",
    "resnet_50",
    "resnext_29",
    "small_vit",
    "source_model",
    "train",
    "wrn_16_4",
    "wrn_28_10",
]
