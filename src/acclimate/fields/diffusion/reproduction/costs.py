"""Bytes and seconds of the published models: the formulas beside what was measured."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from acclimate.experiment.plots.style import blank, colours
from acclimate.experiment.reproduce.part import Drawing, Grid, Line, Shown
from acclimate.fields.diffusion.cost import SHAPES, ModelShape, base_bytes, break_even, packet_bytes, received_bytes
from acclimate.fields.diffusion.cost.published import (
    CAPPED,
    CAPS,
    DEVICES,
    FLUX_L20,
    FLUX_QUALITY,
    calibrated,
    capped,
    claims,
    predicted,
)
from acclimate.fields.diffusion.reproduction.loopback import Timed

__all__ = ["costs_shown", "loopback_grid"]

CODECS = ("whole", "two_bit", "one_bit", "low_rank_int4:32")
_NAMES = {"whole": "whole", "two_bit": "two bits", "one_bit": "one bit", "low_rank_int4:32": "rank 32 in four bits"}
_PUBLISHED = ("flux.1-dev", "pixart-alpha", "sd3-medium", "cogvideox-2b", "dit-xl-2-512")
_ROWS = {
    "single": "one device", "ring": "ring attention", "patch": "patch parallel", "ulysses": "Ulysses",
    "distrifusion": "DistriFusion", "two_bit": "two bits", "one_bit": "one bit",
    "low_rank_int4:32": "rank 32 in four bits",
}  # fmt: skip


def costs_shown() -> Shown:
    """Bytes of the published models, and their latency by the model."""
    return Shown(
        title="Bytes and seconds of published models",
        protocol=(
            f"{DEVICES} devices, 16-bit numbers, one sequence; received bytes of one device for one image, headers "
            "apart; the model hides nothing of the exchange behind computing"
        ),
        grids=[_bytes_grid(), _l20_grid(), _capped_grid(), _claims_grid()],
        drawings=[Drawing(key="latency", figure=_latency_figure(), alternative=_ALTERNATIVE)],
        notes=[
            "Of the L20, bandwidth is taken from the row of ring attention and coding from that of one bit; all other "
            "rows are predicted. Under limits of bandwidth nothing is fitted: computing is that of one device over "
            f"{DEVICES}, coding that of the L20.",
            "DistriFusion hides its exchange behind computing, which the model does not know; under limits of "
            "bandwidth there is little to hide behind. Low rank is bound by computing its factors.",
        ],
    )


_ALTERNATIVE = "Seconds for one image of FLUX.1-dev over bandwidth: lines by the model, points as published"


def _bytes_grid() -> Grid:
    lines: list[Line] = []
    for name in _PUBLISHED:
        shape = SHAPES[name]
        totals = [_gigabytes(shape, codec) for codec in CODECS]
        ratio = packet_bytes(shape, DEVICES) / packet_bytes(shape, DEVICES, "one_bit")
        budget = 1e3 * break_even(shape, DEVICES, "one_bit", 1e10)
        cells = [*totals, f"{ratio:.2f}", f"{base_bytes(shape, DEVICES) / 1e9:.2f}"]
        lines.append(Line("measured", name, [*cells, f"{budget:.2f}"]))
    head = [
        *(f"{_NAMES[codec]}, GB" for codec in CODECS), "one bit, x less", "kept, GB", "one bit pays below, ms",
    ]  # fmt: skip
    title = f"Received by each of {DEVICES} devices; kept by each; what coding one tensor may take at 10 GB/s"
    return Grid(key="cost-bytes", head=head, lines=lines, title=title)


def _gigabytes(shape: ModelShape, codec: str) -> str | None:
    """None where a codec does not take the matrices of a model: four bits need an even number of rows."""
    try:
        return f"{received_bytes(shape, DEVICES, codec) / 1e9:.2f}"
    except ValueError:
        return None


def _l20_grid() -> Grid:
    device = calibrated()
    lines: list[Line] = []
    for row, title in _ROWS.items():
        seconds = None if row == "low_rank_int4:32" else predicted(row, device)
        off = None if seconds is None else f"{100 * (seconds / FLUX_L20[row] - 1):+.1f}"
        fid, lpips = FLUX_QUALITY.get(row, (None, None))
        quality = [None if fid is None else f"{fid:.2f}", None if lpips is None else f"{lpips:.3f}"]
        shown = None if seconds is None else f"{seconds:.2f}"
        lines.append(Line("published", title, [f"{FLUX_L20[row]:.2f}", shown, off, *quality]))
    head = ["published, s", "by the model, s", "off, %", "FID", "LPIPS"]
    return Grid(key="cost-l20", head=head, lines=lines, title="FLUX.1-dev on four L20 (PCIe)")


def _capped_grid() -> Grid:
    lines: list[Line] = []
    for row, seconds in CAPPED.items():
        cells = [f"{found:.1f} ({predicted(row, capped(cap)):.1f})" for cap, found in zip(CAPS, seconds, strict=True)]
        lines.append(Line("published", _ROWS[row], cells))
    title = "FLUX.1-dev under a limit of bandwidth for each device, s (by the model)"
    return Grid(key="cost-capped", head=[f"{cap} MB/s" for cap in CAPS], lines=lines, title=title)


def _claims_grid() -> Grid:
    lines = [
        Line("published", claim.name, [f"{claim.claimed:.1f}", f"{claim.measured:.2f}", f"{claim.modelled:.2f}"])
        for claim in claims()
    ]
    head = ["claimed, x", "from published seconds, x", "by the model, x"]
    return Grid(key="cost-claims", head=head, lines=lines, title="How many times faster")


def _latency_figure() -> Figure:
    figure, axes = blank(7.5, 4.2)
    shown = ("ring", "ulysses", "two_bit", "one_bit")
    palette = colours(shown)
    limits = [300 * 1.04**number for number in range(70)]
    for row in shown:
        seconds = [predicted(row, capped(round(limit))) for limit in limits]
        axes.plot(limits, seconds, color=palette[row], linewidth=1.4, label=_ROWS[row])
        axes.plot(CAPS, CAPPED[row], "o", color=palette[row], markersize=5)
    axes.plot(CAPS, CAPPED["distrifusion"], "x", color=palette["ring"], markersize=6, label="DistriFusion, published")
    axes.axhline(CAPPED["single"][0], color="#8a8f98", linewidth=0.9, linestyle=":", label="one device")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(CAPS, [str(cap) for cap in CAPS])
    axes.set_yticks([10, 20, 50, 100, 200], ["10", "20", "50", "100", "200"])
    axes.minorticks_off()
    axes.set_xlabel("bandwidth of each device, MB/s")
    axes.set_ylabel("seconds for one image")
    axes.legend(frameon=False, fontsize=8)
    return figure


def loopback_grid(devices: int, found: Sequence[Timed]) -> Grid:
    """Cases between real processes, timed and predicted."""
    whole = next((each.limited for each in found if (each.strategy, each.codec) == ("gather", "whole")), None)
    lines = [
        Line(
            "measured",
            f"{each.strategy}, {each.codec}",
            [
                f"{each.sent / 1e6:.2f}",
                f"{each.free:.2f}",
                f"{each.limited:.2f}",
                f"{each.predicted:.2f}",
                f"{100 * (each.limited / each.predicted - 1):+.0f}",
                None if whole is None else f"{whole / each.limited:.2f}",
            ],
        )
        for each in found
    ]
    head = ["MB sent by one", "no limit, s", "slow link, s", "predicted, s", "off, %", "x faster than whole"]
    title = f"{devices} processes, {found[0].bandwidth / 1e6:.2f} MB/s from each"
    return Grid(key=f"loopback-{devices}", head=head, lines=lines, title=title)
