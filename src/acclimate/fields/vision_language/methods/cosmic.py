"""COSMIC: classes that look alike stand together in cliques, in the space of CLIP and in a finer one, and an image is
compared with the classes of the cliques that are nearest to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from acclimate.core.config import between, one_of, whole
from acclimate.core.method import Card
from acclimate.core.state import State
from acclimate.fields.vision_language.caches import Cache
from acclimate.fields.vision_language.graph.hyper_classes import HyperClasses
from acclimate.fields.vision_language.graph.keeping import Graph, Rule
from acclimate.fields.vision_language.method import OneByOne, registry, sizes
from acclimate.fields.vision_language.methods.dmn import attended
from acclimate.fields.vision_language.methods.tda import affinity
from acclimate.fields.vision_language.model import VisionLanguage
from acclimate.fields.vision_language.samples import Sample, doubt, pair, shares
from acclimate.parts.features import unit

__all__ = ["COSMIC"]


@registry.register("cosmic")
@dataclass(frozen=True, kw_only=True)
class COSMIC(OneByOne):
    """Two spaces of class centres, each a graph whose cliques say which classes an image may be of.

    *Caches.* The mean prediction of the `sure` views gives class and entropy; the class keeps those views' mean
    feature, one of `places`. Class `argmax t`, `t = p + softmax(s v q)`, with the entropy of softmax(t), keeps the
    auxiliary feature z, one of `auxiliary_places`. In a full class a surer entry takes the place of the least sure.

    *Centres.* Of CLIP `v`, attended to the image's feature q (see DMN), beside the texts T: 2K nodes. Of the auxiliary
    encoder u, means of entries, not normalised: K nodes, without those of empty classes.

    *Cliques.* The most alike nodes are joined, `degree` neighbours in the mean (`clip_degree` of it among the 2K);
    edges whose ends have `common` neighbours stay. A maximal clique's hyper-class centre is the mean of its nodes. They
    are searched anew whenever a cache has changed, at most every `warm_refresh` images, until `K places` images have
    come, then every `refresh` images; in between cliques and their centres stay, nodes do not.

    *Answer.* Nodes of the share `share` of cliques nearest to the image have
    `l = alpha exp(-beta (1 - node . image))`, others 0; text and visual node of a class are averaged.
    `score = w1 p + w2 l_clip + w3 l_auxiliary`; the answer's logits are its logarithm.

    Arguments: `weights` w, (1, 1, 1) here: the released code picks them for each data set on its test labels;
    `places`, `auxiliary_places` 8 (published; 16 on ImageNet), `sure` 0.1, `attention` 5.5, `alpha` 2 and `beta` 5 (of
    ImageNet), `share` 0.2, `degree` 5 and `clip_degree` 0.8 (released), `common` 2 (released; 1 in the paper),
    `refresh` 50 and `warm_refresh` 1; `views` 16. `level` and `auxiliary_level`, with `growth`, join by similarity
    instead (paper). `doubt_of` "softmax" (released: of probabilities taken for logits) or "mixture" (of t / 2).
    `cosine`, compare by cosine rather than product (paper). `inliers`, "affinity" (released) or "softmax" (paper: of
    `s nodes . image` over all nodes). `upward`, round the number of cliques up (paper). `cliques=False` compares with
    every node. The preset "paper" sets what is named as the paper's here, and no more: centres, what caches take, and
    that cliques are first searched with each change are as released under it, too.

    Cost: one forward for each view and one of the auxiliary encoder; `K (places D + auxiliary_places A)` numbers and
    the nodes. Source: Huang et al., CVPR 2025 (arXiv 2503.23388).
    Fails when sure answers are wrong, and gains little where the auxiliary encoder tells classes apart no better.

    Example: `vision_language.adapt(encoder, texts, method="cosmic", auxiliary=dino)`.
    """

    card: ClassVar[Card] = Card(
        summary="compares an image with the classes of the nearest cliques, in two spaces",
        paper="Huang et al., CVPR 2025 (arXiv 2503.23388)",
        fails_when="sure answers are wrong, or the auxiliary encoder tells classes apart no better",
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "imagenet": {"places": 16, "auxiliary_places": 16, "refresh": 100},
        "paper": {
            "level": 0.85, "auxiliary_level": 0.4, "growth": 1e-5, "common": 1, "cosine": True, "upward": True,
            "inliers": "softmax", "refresh": 50,
        },
        "without-auxiliary": {"weights": (1.0, 1.0, 0.0)},
        "without-cliques": {"cliques": False},
        "without-texts": {"weights": (1.0, 0.0, 1.0)},
    }  # fmt: skip
    views: int = 16
    sure: float = 0.1
    places: int = 8
    auxiliary_places: int = 8
    attention: float = 5.5
    alpha: float = 2.0
    beta: float = 5.0
    share: float = 0.2
    degree: float = 5.0
    clip_degree: float = 0.8
    common: int = 2
    level: float | None = None
    auxiliary_level: float | None = None
    growth: float = 0.0
    cosine: bool = False
    upward: bool = False
    cliques: bool = True
    inliers: str = "affinity"
    doubt_of: str = "softmax"
    refresh: int = 50
    warm_refresh: int = 1
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def check(self) -> None:
        super().check()
        whole(1, places=self.places, auxiliary_places=self.auxiliary_places, refresh=self.refresh)
        whole(1, warm_refresh=self.warm_refresh)
        whole(0, common=self.common)
        between(0, 1, share=self.share, sure=self.sure)
        levels = {"level": self.level, "auxiliary_level": self.auxiliary_level}
        between(-1, 1, **{name: level for name, level in levels.items() if level is not None})
        numbers = {
            name: getattr(self, name) for name in ("alpha", "beta", "attention", "degree", "clip_degree", "growth")
        }
        sizes(**numbers)
        self._check_weights()
        one_of("affinity", "softmax", inliers=self.inliers)
        one_of("softmax", "mixture", doubt_of=self.doubt_of)

    def _check_weights(self) -> None:
        given: Any = self.weights
        if not isinstance(given, (tuple, list)) or len(given) != 3:
            raise ValueError(
                f"weights are {given!r}, expected three numbers: of the texts' predictions, of CLIP's cliques and of "
                "the auxiliary ones."
            )
        numbers = {f"weight_{place}": weight for place, weight in enumerate(given)}
        sizes(**numbers)
        if not any(given):
            raise ValueError(f"weights are {given!r}, which answers every image alike. Give one of them above 0.")

    def looks(self) -> bool:
        return self.weights[2] > 0

    def keep(self, state: State, model: VisionLanguage) -> None:
        classes, width = model.text_features.shape
        Cache.declare(state, "clip", classes, self.places, width)
        self._clip.declare(state, 2 * classes, width)
        if self.looks():
            Cache.declare(state, "auxiliary", classes, self.auxiliary_places, None)
            state.expect("centres", length=classes, host=True)
            self._finer.declare(state, classes, None)

    def graphs(self) -> dict[str, Graph]:
        """By space: "clip", whose nodes are texts and then images of the classes, and "auxiliary", if it is used."""
        return {"clip": self._clip, "auxiliary": self._finer} if self.looks() else {"clip": self._clip}

    @property
    def _clip(self) -> Graph:
        return Graph("clip_graph", self._rule(self.clip_degree * self.degree, self.level))

    @property
    def _finer(self) -> Graph:
        return Graph("auxiliary_graph", self._rule(self.degree, self.auxiliary_level))

    def _rule(self, degree: float, level: float | None) -> Rule:
        return Rule(degree=degree, level=level, growth=self.growth, common=self.common, cosine=self.cosine)

    def answer(self, state: State, sample: Sample, *, learn: bool) -> Tensor:
        parts = self.parts(state, sample, learn=learn)
        return shares(torch.stack([weight * part for weight, part in zip(self.weights, parts, strict=False)]).sum(0))

    def parts(self, state: State, sample: Sample, *, learn: bool) -> tuple[Tensor, ...]:
        """What `weights` weigh, each `[K]`: p, l of CLIP and, with an auxiliary feature, l of that encoder.

        None of them depends on the weights.
        """
        clip, texts = Cache.of(state, "clip", ordered=False), pair(state).text_features.cpu()
        mean, kept = _sure(sample, self.sure)
        new = learn and clip.add(int(mean.argmax()), unit(kept), float(doubt(mean)))
        visual = attended(clip, texts, sample.query, self.attention)
        nodes = torch.cat([texts, visual])
        inliers = self._compare(state, self._clip, nodes, sample.query, new, learn)
        found = sample.predictions[0], inliers.view(2, -1).mean(0)
        if sample.auxiliary is None:
            return found
        seen = sample.predictions[0] + (float(pair(state).logit_scale) * (visual @ sample.query)).softmax(0)
        return *found, self._by_auxiliary(state, sample.auxiliary, seen, learn)

    def _by_auxiliary(self, state: State, feature: Tensor, seen: Tensor, learn: bool) -> Tensor:
        """Logits of the finer space, `[K]`, whose cache takes the image by what texts and memory `seen` say."""
        if not learn and "centres" not in state:  # nothing has come yet, and a frozen answer keeps nothing
            return torch.zeros_like(seen)
        cache = Cache.of(state, "auxiliary", width=len(feature))
        if "centres" not in state:
            state.fulfil("centres", feature.new_zeros(len(seen), len(feature)))
        centres, label = state["centres"], int(seen.argmax())
        entropy = doubt(seen.softmax(0)) if self.doubt_of == "softmax" else doubt(seen / 2)
        new = learn and cache.add(label, feature, float(entropy))
        if new:
            centres[label] = cache.features[label].sum(0) / cache.counts[label]
        return self._compare(state, self._finer, centres, feature, new, learn)

    def _compare(self, state: State, graph: Graph, nodes: Tensor, query: Tensor, new: bool, learn: bool) -> Tensor:
        """`l` of every node `[N]` in the cliques nearest to the query, 0 of others."""
        found = self._cliques(state, graph, nodes, new, learn) if self.cliques else None
        if self.inliers == "softmax":
            values = (float(pair(state).logit_scale) * (nodes @ query)).softmax(0)
        else:
            values = self.alpha * affinity(nodes @ query, self.beta)
        chosen = nodes.abs().amax(1) > 0 if found is None else torch.zeros(len(nodes), dtype=torch.bool)
        if found is not None and len(found):
            places = found.nearest(query, self.share, cosine=self.cosine, upward=self.upward)
            chosen[torch.from_numpy(places)] = True
        return values * chosen

    def _cliques(self, state: State, graph: Graph, nodes: Tensor, new: bool, learn: bool) -> HyperClasses:
        if not learn:
            return graph.current(state)
        number, built, changed = int(state["samples"]), graph.built(state), graph.changed(state, new)
        if number <= len(state["clip.counts"]) * self.places:
            due = changed and number - built >= self.warm_refresh
        else:
            due = number % self.refresh == 0
        return graph.rebuild(state, nodes, number) if built < 0 or due else graph.current(state)


def _sure(sample: Sample, share: float) -> tuple[Tensor, Tensor]:
    """Mean prediction and mean feature of the surest views."""
    kept = sample.sure(share)
    return sample.predictions[kept].mean(0), sample.views[kept].mean(0)
