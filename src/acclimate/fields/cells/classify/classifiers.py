"""The classifiers of the papers, by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from acclimate.core.config import one_of, whole
from acclimate.core.storage import read_state, write_state
from acclimate.fields.cells.classify.arrays import Array, Floats, Labels, as_features, as_labels
from acclimate.fields.cells.classify.duels import KernelDuels, LinearDuels
from acclimate.fields.cells.classify.fitted import Fitted
from acclimate.fields.cells.classify.networks import Network
from acclimate.fields.cells.classify.recipes import FAMILIES, RECIPES, boosting_family
from acclimate.fields.cells.classify.trees import Boosted, Forest
from acclimate.streams.shared import require

__all__ = ["CLASSIFIERS", "Classifier", "build"]

CLASSIFIERS = tuple(RECIPES)
"""Names that `build` takes."""

_KINDS: dict[str, type[Fitted]] = {kind.kind: kind for kind in (Network, LinearDuels, KernelDuels, Forest, Boosted)}


def build(name: str, *, seed: int = 1234) -> Classifier:
    """A classifier of the papers, to be fitted.

    | name | what | settings |
    |---|---|---|
    | forest | random forest | 200 trees of depth 16 at most |
    | boosting | xgboost; scikit-learn's histogram boosting without it | defaults |
    | svm, svm-poly, svm-linear | support vector machine, rbf, cubic or linear kernel | C = 1, gamma 1/(D var(x)) |
    | neural | one hidden layer of 100 | Adam, 1e-3, stops early on a tenth of the cells |
    | logistic | logistic regression | L2, C = 1 |

    All but forest and boosting scale features to mean 0 and deviation 1 of what they are fitted on.

    Raises:
        ValueError: another name or a negative seed.

    >>> classifier = build("logistic").fit([[0.0], [1.0], [4.0], [5.0]], [2, 2, 7, 7])
    >>> classifier.predict([[0.5], [6.0]]).tolist()
    [2, 7]
    """
    return Classifier(name, seed=seed)


class Classifier:
    """See `build`. The same seed and cells give the same classifier.

    Attributes:
        name, seed: as given.
        family: what stands behind the name; for boosting, which of the two.
        classes: labels seen when fitting, in order, int64 `[K]`; empty before.
        notes: what was done otherwise than usual when fitting, in words.
    """

    def __init__(self, name: str, *, seed: int = 1234) -> None:
        one_of(*CLASSIFIERS, classifier=name)
        whole(0, seed=seed)
        self.name, self.seed = name, seed
        self.family = boosting_family() if name == "boosting" else FAMILIES[name]
        self.classes: Labels = np.empty(0, dtype=np.int64)
        self.notes: tuple[str, ...] = ()
        self._fitted: Fitted | None = None
        self._width = 0

    def fit(self, features: Array, labels: Array) -> Classifier:
        """Learn from labelled cells; returns itself.

        Arguments:
            features: finite, `[N, D]`.
            labels: whole numbers of 0 or more, `[N]`; which ones occur is free.

        Raises:
            ValueError: fewer than two classes, features that are not finite, shapes that do not fit.
            ImportError: scikit-learn is not installed.
        """
        x = as_features(features)
        y = as_labels(labels, len(x))
        classes, places = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(
                f"All {len(y)} cells have the classes {classes.tolist()}; expected two classes or more. Add cells of "
                "another class."
            )
        notes: list[str] = []
        # Small products: on two threads they wait for each other twenty times as long as they compute.
        with require("threadpoolctl", "A classifier of cells", "cells").threadpool_limits(1, "blas"):
            self._fitted = RECIPES[self.name](x, places.astype(np.int64), self.seed, notes)
        self.classes, self.notes, self._width = classes, tuple(notes), x.shape[1]
        return self

    @property
    def fitted(self) -> Fitted:
        """The numbers behind it; RuntimeError before `fit`."""
        if self._fitted is None:
            raise RuntimeError(f"The classifier {self.name!r} is not fitted. Call fit(features, labels) first.")
        return self._fitted

    def predict(self, features: Array) -> Labels:
        """The most probable label of each cell, int64 `[N]`; a tie goes to the smaller label."""
        return self.classes[self._probabilities(features).argmax(1)]

    def probabilities(self, features: Array, classes: int) -> NDArray[np.float32]:
        r"""Probability of each label 0..classes-1, float32 `[N, classes]`; 0 for labels never seen.

        A support vector machine has none of its own. Here they are the softmax over classes of decision values
        $s_c = -\sum_{j \ne c} \max(0, f_{jc})$ with $f_{jc}$ the margin of j against c: they rank cells by certainty
        and are not calibrated. `unsure.Temperature` calibrates them on held-out cells.

        Arguments:
            features: finite, `[N, D]` with the D of `fit`.
            classes: more than the highest label seen.

        Raises:
            ValueError: features that are not finite or do not fit, or too few classes.
        """
        self.check_classes(classes)
        found = self._probabilities(features)
        answers = np.zeros((len(found), classes), dtype=np.float32)
        answers[:, self.classes] = found
        return answers

    def check_classes(self, classes: int) -> None:
        """ValueError if a label that was seen does not fit into 0..classes-1."""
        whole(1, classes=classes)
        if self.classes.size and classes <= self.classes[-1]:
            raise ValueError(
                f"classes is {classes}, but the label {self.classes[-1]} was fitted; expected more than it."
            )

    def _probabilities(self, features: Array) -> Floats:
        fitted = self.fitted
        return fitted.probabilities(as_features(features, self._width))

    def save(self, path: str | Path) -> Path:
        """Write the fitted classifier as one safetensors file; `load` reads it and answers the same to the last bit.

        Raises:
            ValueError: boosting without xgboost, which cannot be saved.
        """
        header = {"part": "cells classifier", "name": self.name, "family": self.family, "kind": self.fitted.kind}
        header |= {"seed": self.seed, "notes": list(self.notes), "width": self._width}
        target = Path(path)
        write_state(target, {"classes": torch.from_numpy(self.classes)} | self.fitted.tensors(), header)
        return target

    @classmethod
    def load(cls, path: str | Path) -> Classifier:
        """Read what `save` wrote; FileNotFoundError or ValueError for another file."""
        tensors, header = read_state(Path(path))
        if header.get("part") != "cells classifier":
            raise ValueError(f"{path} holds another part of acclimate. Expected a file written by Classifier.save.")
        found = cls(header["name"], seed=header["seed"])
        found.family, found.notes, found._width = header["family"], tuple(header["notes"]), header["width"]
        found.classes = tensors["classes"].numpy()
        found._fitted = _KINDS[header["kind"]].of(tensors, len(found.classes))
        return found
