"""Write docs/results.md, its figures and the table in README.md.

`python docs/make_results.py` writes them from the trials in docs/measured; a section whose trials are not all there keeps
the text it has. `python docs/make_results.py --run` first runs what is missing (hours on a small machine; it may be
interrupted and goes on). Papers named after it are all that is written; the other sections keep their text. The commands
stand in COMMANDS, sections in their order. Times and costs are not in it: see
speed.md and cost.md.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

from acclimate.cli.app import launch

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
MEASURED = DOCS / "measured"
COMMANDS = (
    "palm --tables 1 --without memo --size 2000",
    "palm --tables 1 --methods bn tent law palm:default --seeds 0 1 2 --size 2000",
    "palm --tables defaults --size 2000",
    "palm --tables variants --validation-rounds 1 --size 2000",
    "palm --tables 4 --size 2000",
    "palm --tables 5 --size 2000",
    "palm --figures 2 --size 2000",
    "palm --tables 7 --size 2000",
    "palm --tables 8 --size 2000",
    "palm --tables 6 --size 400",
    "palm --figures 3 --size 400",
    "surgeon --size 1000 --seeds 0 1",
    "mixed --size 320 --without palm:default rotta deyo",
    "mixed --benchmark digits --size 100 --without memo",
    "guard --benchmark digits --model digits-resnet --size 667 --without memo cotta dss",
    "guard --model cifar10-resnet20 --size 667 --methods bn tent palm:default eata sar rotta lame roid auto",
    "auto --size 667",
    "auto --size 667 --batch-size 64 --methods tent palm:default roid",
    "poisoning --benchmark digits --size 100 --methods bn tent eata sar palm:default roid auto",
)
HEAD = """# Results

Written by `python docs/make_results.py` from trials of [`acclimate reproduce`](reproduce.md); no number of a table is
typed in. The text before the tables reads some off them; what it says of validation streams comes from runs that are not
kept.

Errors in percent, counted on the answers given as each batch arrives. The source model here has 0.27 million
parameters (ResNet-20, clean error 11.8 %), the published rows are those of networks with 36 million (WideResNet-28-10), all
10,000 images and the published corruption files: compare the order of methods, not the numbers. One seed unless told otherwise, so differences
of a few tenths of a point between neighbours mean little.
[The corruptions](corruptions.md) are made here, on JPEG copies of CIFAR-10's test images.

No setting was chosen on a test stream. Methods run with the settings published for CIFAR-10-C; CoTTA's and DSS's gate is
fitted to the source model by the authors' recipe on training images, EATA and EcoTTA take 2,000 training images, and
what was chosen here (PALM's default margin, alpha and learning rate, the rates of table 6) was chosen on training images under the four extra
corruptions. `palm` is the published preset, `palm:default` what `acclimate.adapt(net, "palm")` does.

What to make of it. The gate of CoTTA and DSS never opened (3 forwards a batch in the table): a small network is unsure of
clean images too, so the recipe's threshold lies below its confidence on corrupted ones. RoTTA, NOTE and AdaContrast
answer with running statistics, which lag behind when domains change every ten batches; the published streams have
fifty. LAME and T3A keep the source's statistics; LAME is made for streams sorted by label. RDumb is ETA here: its reset
comes after 1,000 batches. PALM's default is ahead of LAW, Tent and batch statistics on the continual stream, under each
of three seeds (the second table 1); with the published settings PALM and LAW are level there, and LAW is ahead on the
gradual stream, which was not run with the new default. SAR leaves a stage alone, as it does in large networks, and steps little.

Of SURGEON's table: all rows over all weights have the published rate, which is small for this network, so their errors
lie within 0.2 of a point and rank nothing; what they show is that none of the ways to keep less ruins the gradient.
Four bits for everything hold less than SURGEON's shares and have full tuning's error; a static share at equal bytes is
no worse here than the probe's. Norms alone are better and cheaper than all weights. The released code's way holds more
than PyTorch does, although the count that the paper reports (the column cache) is below PyTorch's bytes.

Of mixing domains (one seed, 4,800 images a stream on CIFAR-10, so differences below about half a point are noise). Where
one domain follows the other, batch statistics gain 15 points, and nothing once domains mix; there what counts is how
statistics are estimated, hardly what is learned. FIND gains 6.6 points on the mixed stream (batch statistics: 0.0, a
fixed share of the source's 0.8 to 1.2) and is never below the source; chosen layers only (`find-selective`) cost less
and are no worse. DATTA as released stays in its warm-up's normalisation on these streams: its threshold needs two kinds of
batches in balance, and the angle it measures does not tell them apart on this network (validation: recall of single
batches 0). So it equals `alpha 0.85`, four points behind `alpha 0.6` on the continual stream.
`datta:reference`, ours, measures its border on source images and takes FIND for mixed batches: within half a point of
the better of its two normalisations on the continual stream (`alpha 0.6`), level with the better (FIND) on the mixed
one, and the best mean of all. With labels in clusters everything that leans on the batch loses 4 to 5 points against the
source, and FIND and a large share of the source do not.

MoETTA does not beat Tent here: 47.7 against 47.5 % on the mixed stream with the transformer, both level with the source
(47.7). On validation streams none of twelve settings of Tent, MoETTA and NCTTA moved this transformer by more than 0.2
points for the better (MoETTA's rate 1e-3 to 3e-2 with SGD, 3e-4 and 1e-3 with Adam; Tent 1e-4 to 1e-3): entropy has little
to offer to a small network that errs on 25 % of clean images, in 75 steps. What MoETTA shows is restraint: where Tent
ruins the group-norm network (-12 points), it loses 0.3.

NCTTA does not beat Tent on the continual stream either (26.3 against 25.4 %): on validation streams 15.5 against 15.3, best
of twelve settings (rates 1e-4 to 3e-3 with SGD, 3e-4 and 1e-3 with Adam, scale 1, a wider entropy filter, constant targets);
batch statistics alone have 15.5. Its gradients are several times Tent's, and at the published rate it ruins the group-norm
network sooner; 1e-4 keeps it (`nctta:group-norm`: 30.7 on validation, source 30.9). The papers' networks are larger,
their streams longer, and they reset between domains.

What the guard's tables say is read out in [guard.md](guard.md), those of `auto` in [auto.md](auto.md), those of poisoned
streams in [threats.md](threats.md).

"""
TAIL = """## Not measured

* The published scale (WideResNet-28-10, ResNeXt-29, ResNet-50 on the published files): no accelerator was at hand and no
  published weights. `acclimate reproduce palm --benchmark cifar10c --data DIR --model wrn-28-10 --weights FILE --device
  cuda` is the command; the networks' parameter counts and the loading of state dicts in the published layout are tested.
* MEMO has no row: it makes 32 copies of each image and takes about 0.1 s for one here, so about an hour for a row.
* FOA has no row on CIFAR-10: it needs a transformer. PALM, DeYO and RoTTA have none among the mixing domains there.
* The published potpourri, which needs ImageNet's folders, and networks of the published size.
* Three seeds for every row. Tables 6 and figure 3 are on 400 images a corruption, which moves all errors up.
* CoTTA with its published threshold, whose gate would be open on every batch.
* Tables 4, 6, 7 and 8 and figure 3 were taken before PALM's default changed; they use its published settings, which
  did not.

## Digits

`make run` writes its own table and report. The digits source model was made to be easily upset, and its recipe was
chosen while looking at errors under these corruptions: it demonstrates, it proves nothing about methods.
"""


def perform(options: str, *, run: bool) -> dict[str, str]:
    """One command on the folder of kept trials: its sections by title, each with the command."""
    arguments = ["reproduce", *options.split()]
    if code := launch([*arguments, "--out", str(MEASURED), *([] if run else ["--write-only"])]):
        raise SystemExit(code)
    text = (MEASURED / "reproduce.md").read_text(encoding="utf-8")
    told = f"acclimate {' '.join(arguments)}"
    return {part.partition("\n")[0]: f"## {part.rstrip()}\n\n`{told}`\n" for part in text.split("\n## ")[1:]}


def readme_table() -> str:
    rows = json.loads((MEASURED / "tables" / "table-1.json").read_text(encoding="utf-8"))["rows"]
    today = json.loads((MEASURED / "tables" / "table-1-today.json").read_text(encoding="utf-8"))["rows"]
    measured = {row["name"]: row["mean"] for row in (*rows, *today) if row["kind"] == "measured" and row["mean"]}
    order = sorted(measured, key=lambda name: -measured[name])
    lines = [f"| {name} | {measured[name]:.1f} |" for name in order]
    return "\n".join(["| method | mean error, % |", "|---|--:|", *lines])


def kept() -> dict[str, str]:
    """The sections of the page as it is, by title."""
    text = (DOCS / "results.md").read_text(encoding="utf-8")
    parts = text.partition("\n## Not measured")[0].split("\n## ")[1:]
    return {part.partition("\n")[0]: f"## {part.rstrip()}\n" for part in parts}


def complete(text: str) -> bool:
    """Whether every line that was measured has its first number, or there are pictures and no lines."""
    rows = [line.split("|") for line in text.splitlines() if re.match(r"\| [^*|-]", line) and "--:" not in line]
    return all(re.search(r"\d", row[2] if row[2].strip() != "-" else row[3]) for row in rows) if rows else "![" in text


def main(*papers: str, run: bool) -> None:
    old = kept()
    found: dict[str, str] = dict(old) if papers else {}
    fresh: set[str] = set()
    pictures = DOCS / "figures"
    pictures.mkdir(exist_ok=True)
    table = ""
    for options in COMMANDS:
        if papers and options.split()[0] not in papers:
            continue
        for title, text in perform(options, run=run).items():
            again = ""
            if title in fresh:
                told = re.search(r"([\d,]+ images) a segment.*; (seeds? [\d, ]+)", text)
                batch = re.search(r"--batch-size (\d+)", options)
                title += f", batch {batch[1]}" if batch else f": {', '.join(told.groups()) if told else options}"
                text = re.sub(r"^## .*", f"## {title}", text)
                again = f"-{batch[1]}" if batch else ""
            if not complete(text):
                if title in old:
                    found[title] = old[title]
                continue
            found[title] = text
            fresh.add(title)
            for picture in re.findall(r"\(figures/(.+?)\.png\)", text):
                shutil.copyfile(MEASURED / "figures" / f"{picture}.png", pictures / f"{picture}{again}.png")
            found[title] = re.sub(r"\(figures/(.+?)\.png\)", rf"(figures/\1{again}.png)", text)
        table = table or (readme_table() if not papers else "")
    (DOCS / "results.md").write_text("\n".join([HEAD.rstrip() + "\n", *found.values(), TAIL]), encoding="utf-8")
    if papers:
        return clean()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    block = f"<!-- results -->\n{table}\n<!-- /results -->"
    fresh_readme = re.sub(r"<!-- results -->.*<!-- /results -->", lambda _: block, readme, flags=re.S)
    (ROOT / "README.md").write_text(fresh_readme, encoding="utf-8")
    clean()


def clean() -> None:
    """What belongs to one command alone goes again."""
    for made in ("tables", "figures"):
        shutil.rmtree(MEASURED / made, ignore_errors=True)
    for made in ("reproduce.md", "reproduce.html"):
        (MEASURED / made).unlink(missing_ok=True)


if __name__ == "__main__":
    main(*(word for word in sys.argv[1:] if word != "--run"), run="--run" in sys.argv[1:])
