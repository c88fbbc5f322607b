"""Which methods are compared with COSMIC, and with which of the settings that were published for a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from acclimate.core.method import Method
from acclimate.fields.vision_language.data.catalogue import OUT_OF_DISTRIBUTION, Facts
from acclimate.fields.vision_language.data.opening import facts_of
from acclimate.fields.vision_language.method import registry
from acclimate.fields.vision_language.methods.boostadapter import BoostAdapter
from acclimate.fields.vision_language.methods.cosmic import COSMIC
from acclimate.fields.vision_language.methods.tda import TDA
from acclimate.fields.vision_language.methods.zero_shot import ZeroShot

__all__ = ["ORACLE", "ROWS", "TRANSFER", "Row", "chosen_rows", "fitted"]

ORACLE = "cosmic:oracle"
TRANSFER = "cosmic:transfer"
"""Rows whose weights are chosen on labels: of the very test images, or of another data set."""

PLAIN = "zero-shot:plain"


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the tables.

    Arguments:
        key: as on the command line and in file names.
        title: as in tables.
        method: before it is fitted to a data set.
        plain: whether the texts are those of the plain prompt.
        labelled: whether weights are chosen on labels.
    """

    key: str
    title: str
    method: Method
    plain: bool = False
    labelled: bool = False


def _rows() -> dict[str, Row]:
    cache_alone = COSMIC(weights=(1.0, 0.0, 1.0), cliques=False)
    listed = (
        Row(PLAIN, 'zero-shot, "a photo of a ..."', ZeroShot(), plain=True),
        Row("zero-shot", "zero-shot, same texts as below", ZeroShot()),
        *(Row(name, name, registry.build(name)) for name in ("tda", "boostadapter", "dmn", "zero")),
        Row("cosmic", "cosmic, weights (1, 1, 1)", COSMIC()),
        *(_variant(name) for name in ("without-auxiliary", "without-texts", "without-cliques")),
        Row("cosmic:cache", "cosmic, auxiliary cache alone, no cliques", cache_alone),
        Row(ORACLE, "ORACLE: cosmic, weights chosen on these test labels", COSMIC(), labelled=True),
        Row(TRANSFER, "cosmic, weights chosen on labels of another data set", COSMIC(), labelled=True),
    )
    return {row.key: row for row in listed}


def _variant(preset: str) -> Row:
    told = {"without-texts": "without the graph of CLIP", "without-auxiliary": "without the second encoder"}
    return Row(f"cosmic:{preset}", f"cosmic, {told.get(preset, 'without cliques')}", COSMIC.preset(preset))


ROWS: Mapping[str, Row] = _rows()
"""By key, in the order of the tables. Others are methods or presets by name."""


def chosen_rows(names: Sequence[str] = ()) -> dict[str, Row]:
    """The rows of these keys, all of `ROWS` where none is named; another key is a method, `name` or `name:preset`.

    Raises ValueError for a name that is neither.
    """
    found = {name: ROWS[name] if name in ROWS else Row(name, name, registry.build(name)) for name in names}
    return found or dict(ROWS)


def fitted(method: Method, dataset: str) -> Method:
    """A method with what was published for this data set, so far as it has such settings.

    `alpha` and `beta` of affinities; COSMIC's 16 places and refresh at 100 images on ImageNet and its variants, the
    latter in the released code alone; its levels where it joins by similarity, as in the paper; BoostAdapter's guests;
    and whether TDA and BoostAdapter look at several views, as on the variants of ImageNet.
    Labels have no part in it here, but had in how `alpha` and `beta` were found.
    """
    facts = facts_of(dataset)
    variant = facts.group == OUT_OF_DISTRIBUTION and dataset != "imagenet"
    if isinstance(method, COSMIC):
        return _fitted_cosmic(method, facts)
    if isinstance(method, BoostAdapter):
        views = 1 if dataset == "imagenet" else method.views
        found = replace(method, alpha=facts.alpha, beta=facts.beta, boost=facts.boost, averaged=variant)
        return replace(found, views=views)
    if isinstance(method, TDA):
        views = {"views": 64, "area": 0.08} if variant else {"views": 1}
        return replace(method, alpha=facts.alpha, beta=facts.beta, **views)
    return method


def _fitted_cosmic(method: COSMIC, facts: Facts) -> COSMIC:
    found = replace(method, alpha=facts.alpha, beta=facts.beta)
    if facts.group == OUT_OF_DISTRIBUTION:
        kept = {} if method.level is None else {"refresh": method.refresh}
        found = replace(found, **{**COSMIC.presets["imagenet"], **kept})
    if method.level is not None:
        found = replace(found, level=facts.level)
    if method.auxiliary_level is not None:
        found = replace(found, auxiliary_level=facts.auxiliary_level)
    return found
