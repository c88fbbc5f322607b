"""The corruptions against `imagecorruptions`, image by image: speed; and how close they are to published data.

python -m benchmarks.corruptions              speed, as ratios in one run
python -m benchmarks.corruptions --fidelity   change, channel means and the source model's error
python -m benchmarks.corruptions --grid FILE  a picture of all corruptions and severities
"""

import argparse
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from acclimate.streams.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS, corrupt

SEVERITIES = (1, 3, 5)
SHARED = Path(os.environ.get("ACCLIMATE_SHARED", Path(__file__).parents[2] / "shared"))
# What the published CIFAR-10-C generator does to the source model at severity 5, in %.
PUBLISHED_ERROR = {
    "gaussian_noise": 53.3, "shot_noise": 48.7, "impulse_noise": 63.8, "defocus_blur": 35.5, "glass_blur": 45.0,
    "motion_blur": 39.2, "zoom_blur": 35.6, "snow": 29.9, "frost": 32.7, "fog": 43.7, "brightness": 19.7,
    "contrast": 75.1, "elastic_transform": 31.4, "pixelate": 44.0, "jpeg_compression": 18.4,
}  # fmt: skip


def best(work: Callable[[], object], repeats: int, clock: Callable[[], float]) -> float:
    """The shortest time of `repeats` runs in milliseconds."""
    times: list[float] = []
    for _ in range(repeats):
        start = clock()
        work()
        times.append(clock() - start)
    return 1000 * min(times)


def shapes(count: int, side: int) -> Tensor:
    """Uint8 [count, 3, side, side]: smooth random pictures, so that the benchmark needs no data."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 6, 6, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1)
    return (smooth * 255).to(torch.uint8)


def speed(count: int, side: int, threads: int, repeats: int, *, processor: bool) -> None:
    clock = time.process_time if processor else time.perf_counter
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import imagecorruptions
    torch.set_num_threads(threads)
    # What any model does to the process: after one large block has come and gone, the C library keeps freed
    # memory. Before that, both sides pay for fetching each page from the system again and again.
    torch.empty(30 << 20, dtype=torch.uint8).fill_(1)
    batch = shapes(count, side)
    single = list(np.ascontiguousarray(batch.movedim(1, -1).numpy()))
    print(f"{count} images of {side}x{side}, severities {SEVERITIES} together, {threads} threads, best of {repeats}")
    print("processor time" if processor else "wall time")
    print(f"{'corruption':20}{'batched ms':>12}{'per image ms':>14}{'ratio':>8}")
    total = [0.0, 0.0]
    for name in CORRUPTIONS + EXTRA_CORRUPTIONS:
        corrupt(batch, name, 1)
        ours = sum(best(lambda s=s, n=name: corrupt(batch, n, s), 5 * repeats, clock) for s in SEVERITIES)

        def reference(severity: int, name: str = name) -> None:
            # Its spatter divides nothing by nothing where no drop has an edge.
            with np.errstate(invalid="ignore"):
                for image in single:
                    imagecorruptions.corrupt(image, severity=severity, corruption_name=name)

        try:
            theirs = sum(best(lambda s=s: reference(s), repeats, clock) for s in SEVERITIES)
        except (AttributeError, TypeError) as error:
            print(f"{name:20}{ours:12.1f}{'does not run':>14}{'-':>8}   ({type(error).__name__})")
            continue
        if name != "frost":
            total[0] += ours
            total[1] += theirs
        print(f"{name:20}{ours:12.1f}{theirs:14.1f}{theirs / ours:8.1f}")
    print(f"{'all but frost':20}{total[0]:12.1f}{total[1]:14.1f}{total[1] / total[0]:8.1f}")
    print("The reference uses ImageNet constants at every size, the batch those of its size; work is comparable.")


def fidelity(draws: int) -> None:
    from acclimate.models import cifar10_resnet20
    from acclimate.streams.datasets import load_dataset

    data = load_dataset("cifar10", split="test")
    chosen = torch.from_numpy(np.random.default_rng(0).permutation(10000)[:2000])
    images, labels = data.images[chosen], data.labels[chosen]
    model = cifar10_resnet20(weights=SHARED / "models/cifar10_resnet20.safetensors").eval()
    file = np.load(SHARED / "data/corruption_reference.npz")
    clean, index = torch.from_numpy(file["clean"]).movedim(-1, 1), torch.from_numpy(file["index"])
    print(f"Mean absolute change in levels at severities {SEVERITIES}: ours ({draws} draws) / published (one draw);")
    print("largest gap between channel means in levels; source model's error in % at severity 5.\n")
    print("| corruption | change at 1 | at 3 | at 5 | channel means | error | published |")
    print("|---|---|---|---|---|---|---|")
    errors: list[float] = []
    for name in CORRUPTIONS:
        cells: list[str] = []
        gap = 0.0
        for severity in SEVERITIES:
            published = torch.from_numpy(file[f"{name}_{severity}"]).movedim(-1, 1).float()
            runs = [corrupt(clean, name, severity, index=index, seed=k) * 255 for k in range(draws)]
            ours = torch.stack(runs)
            change, expected = ((levels - clean).abs().mean().item() for levels in (ours, published))
            cells.append(f"{change:.2f} / {expected:.2f} ({change / expected - 1:+.1%})")
            means = ours.mean((0, 1, 3, 4)) - published.mean((0, 2, 3))
            gap = max(gap, means.abs().max().item())
        with torch.no_grad():
            parts = corrupt(images, name, 5, index=chosen).split(500)
            answers = torch.cat([model(part).argmax(1) for part in parts])
        errors.append(100 * (answers != labels).float().mean().item())
        row = [name, *cells, f"{gap:.1f}", f"{errors[-1]:.1f}", f"{PUBLISHED_ERROR[name]:.1f}"]
        print("| " + " | ".join(row) + " |", flush=True)
    mean = np.mean(list(PUBLISHED_ERROR.values()))
    print(f"| mean | | | | | {np.mean(errors):.1f} | {mean:.1f} |")


def grid(file: Path, side: int) -> None:
    import matplotlib.pyplot as plt

    names = CORRUPTIONS + EXTRA_CORRUPTIONS
    image = shapes(1, side)
    if side == 32 and (SHARED / "data/corruption_reference.npz").is_file():
        with np.load(SHARED / "data/corruption_reference.npz") as reference:
            image = torch.from_numpy(reference["clean"][4:5]).movedim(-1, 1)
    figure, axes = plt.subplots(len(names), 5, figsize=(10, 2 * len(names)))
    for name, row in zip(names, axes, strict=True):
        for severity, axis in enumerate(row, start=1):
            axis.imshow(corrupt(image, name, severity)[0].movedim(0, -1))
            axis.set_title(f"{name} {severity}", fontsize=8)
            axis.axis("off")
    figure.tight_layout()
    figure.savefig(file, dpi=60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fidelity", action="store_true", help="compare with published data (needs the shared folder)")
    parser.add_argument("--grid", type=Path, metavar="FILE", help="draw all corruptions")
    parser.add_argument("--images", type=int, default=200, help="in the batch")
    parser.add_argument("--side", type=int, default=32, help="pixels of an image's side")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cpu-time", action="store_true", help="count processor time: for machines that are shared")
    given = parser.parse_args()
    if given.grid:
        grid(given.grid, given.side)
    elif given.fidelity:
        fidelity(draws=8)
    else:
        speed(given.images, given.side, given.threads, given.repeats, processor=given.cpu_time)


if __name__ == "__main__":
    main()
