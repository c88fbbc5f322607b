"""Click-through-rate prediction: ranking models, and their predictions merged at test time."""

from importlib import import_module
from typing import TYPE_CHECKING

from acclimate.fields.recommendation.data.clicks import Clicks
from acclimate.fields.recommendation.data.encoding import Encoded, encode_files
from acclimate.fields.recommendation.data.formats import FORMATS
from acclimate.fields.recommendation.data.planted import planted
from acclimate.fields.recommendation.data.preparing import prepare
from acclimate.fields.recommendation.data.sets import SETS, load_set
from acclimate.fields.recommendation.data.splits import Split, random_split, time_split
from acclimate.fields.recommendation.data.vocabulary import FieldVocabulary
from acclimate.fields.recommendation.measuring.diversity import Diversity, diversity
from acclimate.fields.recommendation.measuring.paired import Gain, paired_gain
from acclimate.fields.recommendation.measuring.scores import Scores, scores
from acclimate.fields.recommendation.merging.choosing import fit_weights, greedy
from acclimate.fields.recommendation.merging.export import export
from acclimate.fields.recommendation.merging.folder import load_member, load_merged, save_member, save_merged
from acclimate.fields.recommendation.merging.how import HOW, merge_logits
from acclimate.fields.recommendation.merging.merged import Merged, merge
from acclimate.fields.recommendation.models.counting import Cost, cost_of
from acclimate.fields.recommendation.models.ranker import Ranker
from acclimate.fields.recommendation.models.registry import MODELS, build
from acclimate.fields.recommendation.models.scaling import scaled
from acclimate.fields.recommendation.online.progressive import progressive
from acclimate.fields.recommendation.online.weights import OnlineMerge
from acclimate.fields.recommendation.serving.lane import local, remote
from acclimate.fields.recommendation.serving.on_ray import actor
from acclimate.fields.recommendation.serving.panel import Answer, Panel
from acclimate.fields.recommendation.serving.worker import listen
from acclimate.fields.recommendation.training.learning import PUBLISHED, Recipe, answers, train

if TYPE_CHECKING:
    from acclimate.fields.recommendation.reproduction import reproduce_scaling

__all__ = [
    "FORMATS",
    "HOW",
    "MODELS",
    "PUBLISHED",
    "SETS",
    "Answer",
    "Clicks",
    "Cost",
    "Diversity",
    "Encoded",
    "FieldVocabulary",
    "Gain",
    "Merged",
    "OnlineMerge",
    "Panel",
    "Ranker",
    "Recipe",
    "Scores",
    "Split",
    "actor",
    "answers",
    "build",
    "cost_of",
    "diversity",
    "encode_files",
    "export",
    "fit_weights",
    "greedy",
    "listen",
    "load_member",
    "load_merged",
    "load_set",
    "local",
    "merge",
    "merge_logits",
    "paired_gain",
    "planted",
    "prepare",
    "progressive",
    "random_split",
    "remote",
    "reproduce_scaling",
    "save_member",
    "save_merged",
    "scaled",
    "scores",
    "time_split",
    "train",
]


def __getattr__(name: str) -> object:
    if name != "reproduce_scaling":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.reproduction").reproduce_scaling
