"""SURGEON's table on CamVid: rows that are run once, what they hold, and what is written."""

import json
import re
from functools import partial
from pathlib import Path

import pytest
import torch

import acclimate
from acclimate.fields.segmentation import (
    CAMVID_CLASSES,
    Comparison,
    Scenes,
    compare,
    lineup,
    reproduce_camvid,
    reproduction,
    weather_stream,
)
from acclimate.fields.segmentation.published import IMPORTANCE, SEGMENTATION
from acclimate.methods.surgeon import Surgeon
from acclimate.methods.tent import Tent
from acclimate.models.segmenter import Segmenter


def scenes(split: str = "test", count: int = 6) -> Scenes:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 3, 48, 64), dtype=torch.uint8, generator=generator)
    labels = torch.randint(-1, 11, (count, 48, 64), generator=generator)
    return Scenes("camvid", images, labels, CAMVID_CLASSES, split)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reproduction, "camvid", lambda split, **_: scenes(split))
    monkeypatch.setattr(reproduction, "source_segmenter", lambda *_, **__: Segmenter(11, widths=(8, 16, 16)).eval())
    monkeypatch.setattr(reproduction, "weather_stream", partial(weather_stream, rounds=2))


def rows(folder: Path, key: str = "camvid") -> dict[str, dict[str, float | None]]:
    return {row["name"]: row for row in json.loads((folder / "tables" / f"{key}.json").read_text())["rows"]}


def test_every_row_is_run_once(tiny: None, tmp_path: Path):
    told: list[tuple[int, int, str]] = []
    chosen = ["source", "tent", "surgeon-bn"]
    markdown, _ = reproduce_camvid(tmp_path, size=2, methods=chosen, progress=lambda *call: told.append(call))
    assert told[-1] == (24, 24, "surgeon-bn") and len({name for *_, name in told}) == 3
    assert [done for done, *_ in told] == sorted(done for done, *_ in told)
    files = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "camvid").iterdir()}
    assert [re.sub(r"-\w{12}\.json$", "", name) for name in sorted(files)] == ["source", "surgeon-bn", "tent"]
    before = markdown.read_text()
    told.clear()
    reproduce_camvid(tmp_path, size=2, methods=chosen, progress=lambda *call: told.append(call))
    assert not told and markdown.read_text() == before
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "camvid").iterdir()} == files
    broken = next((tmp_path / "camvid").glob("tent-*"))
    broken.write_text("{")
    reproduce_camvid(tmp_path, size=2, methods=chosen)
    assert Comparison.load(broken).cells


def test_the_table_has_what_the_rows_came_to(tiny: None, tmp_path: Path):
    markdown, html = reproduce_camvid(tmp_path, size=3, methods=["source", "tent"])
    model = Segmenter(11, widths=(8, 16, 16)).eval()
    stream = weather_stream(scenes(), severity=lineup.SEVERITY, size=3, rounds=2)
    tent = Tent(learning_rate=lineup.ROWS["tent"].make().learning_rate)  # pyright: ignore[reportAttributeAccessIssue]
    found = compare(model, stream, {"source": "source", "tent": tent})
    table = rows(tmp_path)
    assert table["source"]["fog 4"] is None
    for cell in found.cells:
        if cell.round == 1:
            assert table[cell.method][f"{cell.condition} {cell.round}"] == pytest.approx(cell.error)
    assert table["tent"]["mean"] == pytest.approx(found.mean_error("tent"))
    taken = acclimate.adapt(model, tent).memory(next(iter(stream)).images)
    assert taken.saved is not None
    assert table["tent"]["held, MB"] == pytest.approx(taken.saved / 1e6) and table["tent"]["x stock"] == 1
    assert table["source"]["held, MB"] == 0
    assert (table["tent"]["allocator, MB"] or 0) > taken.saved / 1e6
    text = markdown.read_text()
    assert "*surgeon-bn*" in text and "Published: DeepLabV3+" in text and "3 scenes of each" in text
    assert (tmp_path / "figures" / "camvid-memory.png").is_file() and "Published: SegFormer" in html.read_text()


def test_static_pruning_holds_what_surgeon_holds(tiny: None, tmp_path: Path):
    chosen = ["full tuning", "surgeon", "static pruning"]
    reproduce_camvid(tmp_path, size=2, methods=chosen)
    table = rows(tmp_path)
    held = {name: table[name]["held, MB"] or 0.0 for name in chosen}
    assert held["static pruning"] == pytest.approx(held["surgeon"], rel=0.02)
    assert held["surgeon"] < held["full tuning"] and table["full tuning"]["x stock"] == 1
    saved = json.loads(next((tmp_path / "camvid").glob("static-pruning-*")).read_text())
    assert 0 < saved["methods"]["static pruning"]["memory"]["share"] < 1


def test_all_rows_are_methods_that_differ_in_what_backward_keeps_alone():
    """The rows that the paper compares at equal loss have the same settings but for `memory`."""
    names = ("full tuning", "checkpointing", "surgeon", "surgeon without G", "surgeon without M", lineup.EQUAL)
    made = [method for name in names if isinstance(method := lineup.ROWS[name].make(), Surgeon)]
    assert len(made) == len(names)
    settings = [{key: value for key, value in one.config().items() if key != "memory"} for one in made]
    assert all(one == settings[0] for one in settings)
    assert len({str(one.memory) for one in made}) == len(names)
    assert not made[0].certain and made[0].consistency == 0


def test_a_row_that_cannot_run_is_told(tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def broken() -> acclimate.Method:
        raise ValueError("there is no such thing")

    monkeypatch.setattr(lineup, "ROWS", {"source": lineup.ROWS["source"], "odd": lineup.Row(broken, "nothing")})
    text = reproduce_camvid(tmp_path, size=2)[0].read_text()
    assert "odd did not run: there is no such thing" in text and "| source |" in text


def test_a_page_without_any_row_is_the_published_one():
    shown = reproduction.shown_camvid(lineup.ROWS, {}, {"cotta": "it was tired"})
    assert not shown.drawings and not shown.grids[0].lines and len(shown.grids) == 3
    assert "nothing is finished" in shown.protocol and "cotta did not run: it was tired" in shown.notes


def test_means_over_seeds(tiny: None, tmp_path: Path):
    reproduce_camvid(tmp_path, size=2, methods=["bn"], seeds=(0, 1))
    one, two = (Comparison.load(path).mean_error("bn") for path in (tmp_path / "camvid").iterdir())
    row = rows(tmp_path)["bn"]
    assert row["mean"] == pytest.approx((one + two) / 2)
    assert row["± seeds"] == pytest.approx(abs(one - two) / 2**0.5) and one != two


def test_bad_choices_of_the_reproduction_are_refused(tiny: None, tmp_path: Path):
    with pytest.raises(ValueError, match=r"no row 'surgoen'.*Did you mean 'surgeon"):
        reproduce_camvid(tmp_path, methods=["surgoen"])
    with pytest.raises(ValueError, match="at least one, each of them once"):
        reproduce_camvid(tmp_path, seeds=(0, 0))


def test_the_gate_is_below_the_confidence_of_nearly_all_clean_images():
    model = Segmenter(11, widths=(4, 8, 8)).eval()
    data = scenes("train", 40)
    threshold = lineup.confidence_threshold(model, data)
    with torch.no_grad():
        sure = model(data.read(torch.arange(40)).double().float() / 255).double().softmax(1).amax(1).mean((1, 2))
    assert threshold == pytest.approx(torch.quantile(sure, 0.05).item() - 0.05, abs=6e-4)


def test_published_rows_are_whole():
    """The source never changes, so its mean is that of its four errors."""
    for table in SEGMENTATION.values():
        assert all(len(row) == 18 and None not in row for row in table.values())
        source = [value or 0.0 for value in table["source"]]
        assert source[:4] * 4 == source[:16] and source[16] == pytest.approx(sum(source[:4]) / 4, abs=0.051)
    assert IMPORTANCE["surgeon without G"][0] > SEGMENTATION["DeepLabV3+"]["surgeon"][16]  # type: ignore[operator]
