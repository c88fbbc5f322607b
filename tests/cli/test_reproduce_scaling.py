from __future__ import annotations

from pathlib import Path

import pytest

from acclimate.cli import main
from acclimate.fields.recommendation import reproduction


def test_the_command_hands_over_what_was_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}

    def write(folder: Path, **settings: object) -> tuple[Path, Path]:
        asked.update(settings, folder=folder)
        return folder / "a.md", folder / "a.html"

    monkeypatch.setattr(reproduction, "reproduce_scaling", write)
    out = str(tmp_path / "run")
    assert (
        main(["reproduce", "scaling", "--tables", "adult", "--methods", "fnn", "dcn", "--jobs", "2", "--out", out]) == 0
    )
    assert asked.pop("progress") is not None
    assert asked == {
        "folder": tmp_path / "run", "data": None, "methods": ("fnn", "dcn"), "sets": ("adult",),
        "seeds": (0, 1, 2, 3), "jobs": 2,
    }  # fmt: skip
    main(["reproduce", "scaling", "--seeds", "5", "7", "--out", out])
    assert asked["seeds"] == (5, 7) and asked["sets"] == ()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--seeds", "7"), "--seeds is 7; scaling merges seeds, so give two or more"),
        (("--size", "100"), "scaling does not take --size"),
        (("--device", "cuda"), "scaling does not take --device"),
        (("--jobs", "0"), "--jobs is 0; expected 1 or more"),
    ],
)
def test_what_scaling_cannot_do_is_refused(
    options: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reproduction, "reproduce_scaling", lambda *_, **__: pytest.fail("it began"))
    assert main(["reproduce", "scaling", *options]) == 2
    assert told in capsys.readouterr().err


def test_options_of_others_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "scaling", "--benchmark", "digits"]) == 2
    assert "scaling does not take --benchmark" in capsys.readouterr().err
    assert main(["reproduce", "scaling", "--tables", "movielens"]) == 2
    assert "no set 'movielens'" in capsys.readouterr().err


def test_slow_links_take_their_own_options_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "decosgd", "--jobs", "0"]) == 2
    assert "--jobs is 0" in capsys.readouterr().err
    assert main(["reproduce", "decosgd", "--size", "5"]) == 2
    assert "decosgd does not take --size" in capsys.readouterr().err
    assert main(["reproduce", "decosgd", "--tables", "movies"]) == 2
    assert "table must be one of" in capsys.readouterr().err
