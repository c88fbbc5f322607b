"""Prompt templates by name; `{}` is where the name of a class goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["TEMPLATES", "templates_of"]

_TIP7 = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)

_KINDS = (
    "a bad photo",
    "a sculpture",
    "a low resolution photo",
    "a rendering",
    "graffiti",
    "a cropped photo",
    "a tattoo",
    "a bright photo",
    "a dark photo",
    "a drawing",
    "a close-up photo",
    "a black and white photo",
    "a painting",
    "a pixelated photo",
    "a jpeg corrupted photo",
    "a blurry photo",
    "a photo",
    "a good photo",
    "a doodle",
    "a sketch",
    "a rendition",
    "art",
    "itap",
)
"""Before "of", an article and the name."""

_STATES = ("hard to see", "clean", "dirty", "cool", "large", "nice", "weird", "small")
"""Between an article and the name on a photo."""

_MATERIALS = ("embroidered", "plastic", "origami", "toy", "cartoon", "plushie")
"""Between an article and the name, and nothing else."""

_OTHERS = ("a photo of many {}.", "a photo of my {}.", "a photo of one {}.", "itap of my {}.")


def _full80() -> tuple[str, ...]:
    stems = [f"{kind} of @ {{}}." for kind in _KINDS]
    stems += [f"a photo of @ {state} {{}}." for state in _STATES]
    stems += [f"@ {material} {{}}." for material in _MATERIALS]
    stems.append("@ {} in a video game.")
    return (*(stem.replace("@", article) for stem in stems for article in ("a", "the")), *_OTHERS)


TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "simple": ("a photo of a {}.",),
    "tip7": _TIP7,
    "full80": _full80(),
    "imagenet": _TIP7,
    "caltech101": _TIP7,
    "sun397": _TIP7,
    "flowers102": ("a photo of a {}, a type of flower.",),
    "dtd": ("{} texture.",),
    "pets": ("a photo of a {}, a type of pet.",),
    "aircraft": ("a photo of a {}, a type of aircraft.",),
    "food101": ("a photo of {}, a type of food.",),
    "ucf101": ("a photo of a person doing {}.",),
    "eurosat": ("a centered satellite photo of {}.",),
    "cars": ("a photo of a {}, a type of car.",),
}
"""Sets of templates: one, the seven of Tip-Adapter, the eighty of CLIP for ImageNet, and those in use by data set.

Published runs differ: TDA takes the seven for cars, and the eighty for ImageNet-R and -Sketch.
"""


def templates_of(templates: str | Sequence[str] | None) -> tuple[str, ...]:
    """The templates that are meant: a name of `TEMPLATES`, one template, several, or None for none.

    Raises ValueError for an unknown name and for what has no place for a class name.

    >>> templates_of("dtd"), templates_of("a {}."), templates_of(None)
    (('{} texture.',), ('a {}.',), ())
    """
    if templates is None:
        return ()
    if isinstance(templates, str):
        if "{}" not in templates and templates not in TEMPLATES:
            raise ValueError(
                f"there are no templates {templates!r}. Name one of {', '.join(TEMPLATES)}, or write one with {{}} "
                "where the class name goes."
            )
        return TEMPLATES.get(templates, (templates,))
    for template in templates:
        if not isinstance(template, str) or "{}" not in template:
            raise ValueError(f"found the template {template!r}, expected a text with {{}} where the class name goes.")
    return tuple(templates)
