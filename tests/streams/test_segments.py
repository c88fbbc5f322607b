"""Segment plans against the published protocols."""

import pytest

from acclimate.streams import CLEAN, Segment, plan_segments

STANDARD = [
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "snow",
    "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression",
]  # fmt: skip


def test_continual_is_the_fifteen_corruptions_once():
    assert list(plan_segments("continual")) == [Segment(name, 5) for name in STANDARD]
    assert {s.severity for s in plan_segments("continual", severity=2)} == {2}


def test_gradual_has_135_segments():
    segments = plan_segments("gradual")
    assert len(segments) == 135
    assert [s.severity for s in segments] == [1, 2, 3, 4, 5, 4, 3, 2, 1] * 15
    assert [s.name for s in segments[::9]] == STANDARD
    assert all(len({s.name for s in segments[i : i + 9]}) == 1 for i in range(0, 135, 9))


def test_gradual_of_cotta_has_131_segments():
    segments = plan_segments("gradual-cotta")
    assert len(segments) == 131
    assert [s.severity for s in segments] == [5, 4, 3, 2, 1] + [1, 2, 3, 4, 5, 4, 3, 2, 1] * 14
    assert {s.name for s in segments[:5]} == {"gaussian_noise"}
    assert [s.name for s in segments[5::9]] == STANDARD[1:]


def test_severity_shares_of_the_gradual_setting():
    levels = [s.severity for s in plan_segments("gradual")]
    assert [levels.count(level) / len(levels) for level in range(1, 6)] == [2 / 9] * 4 + [1 / 9]


def test_chosen_corruptions_keep_their_order():
    names = ["fog", "speckle_noise", "snow"]
    assert [s.name for s in plan_segments("continual", corruptions=names)] == names


def test_clean_is_one_segment():
    assert plan_segments("clean") == (CLEAN,)
    assert Segment("clean", 0) == CLEAN


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"setting": "continul"}, "Did you mean 'continual'.*gradual-cotta"),
        ({"setting": "continual", "severity": 0}, "severity is 0; expected 1"),
        ({"setting": "continual", "severity": 6}, "severity is 6"),
        ({"setting": "continual", "severity": True}, "severity is True"),
        ({"setting": "gradual", "severity": 3}, "visits every severity"),
        ({"setting": "continual", "corruptions": ["fogg"]}, "no corruption 'fogg'. Did you mean 'fog'"),
        ({"setting": "continual", "corruptions": "fog"}, r"expected a sequence of names: \['fog'\]"),
        ({"setting": "continual", "corruptions": []}, "corruptions is empty"),
        ({"setting": "clean", "corruptions": ["fog"]}, "corrupts nothing"),
    ],
)
def test_bad_plans_are_refused(arguments: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        plan_segments(**arguments)  # pyright: ignore[reportArgumentType]
