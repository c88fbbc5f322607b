"""What is compared: exchanges and their settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from acclimate.compression.message import MessageCodec
from acclimate.core.config import one_of
from acclimate.fields.diffusion.residual.settings import Policy

__all__ = ["GROUPS", "ROWS", "Row", "chosen_rows"]

GROUPS = ("table", "codecs", "warm-up", "ablations")
"""Which table a row belongs to: the paper's comparison, more codecs, warm-ups, and other choices."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One way to exchange.

    Arguments: `key`; `title`; `group`, of `GROUPS`; `codec`, by name; `strategy`; `settings`, further ones of
    `ResidualSettings`; `policy`, of `POLICIES`, which tensors are compressed.
    """

    key: str
    title: str
    group: str = "table"
    codec: str = "whole"
    strategy: str = "gather"
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    policy: str | None = None

    def config(self) -> dict[str, Any]:
        """All that decides the numbers, as JSON values."""
        return {"codec": self.codec, "strategy": self.strategy, "policy": self.policy, **self.settings}

    def arguments(self, layers: int) -> dict[str, Any]:
        """What `compact` is given besides the devices, for a model of so many layers."""
        given: dict[str, Any] = {"strategy": self.strategy, "codec": self.codec, **self.settings}
        if self.policy is not None:
            given["policy"] = POLICIES[self.policy](self.codec, layers)
        return given


def _only(kind: str) -> Callable[[str, int], Policy]:
    def policy(codec: str, layers: int) -> Policy:
        def choose(layer: int, step: int, what: str) -> str | MessageCodec:
            return codec if what.startswith(kind) else "whole"

        return choose

    return policy


def _inner(codec: str, layers: int) -> Policy:
    def choose(layer: int, step: int, what: str) -> str | MessageCodec:
        return codec if 0 < layer < layers - 1 else "whole"

    return choose


POLICIES: Mapping[str, Callable[[str, int], Policy]] = {"keys": _only("k"), "values": _only("v"), "inner": _inner}
"""By name: only keys, only values, or all layers but the first and the last are compressed."""


def _direct(codec: str, title: str) -> Row:
    settings = {"order": 0}
    return Row(key=f"direct:{codec}", title=f"direct, {title}", codec=codec, settings=settings)


def _open(codec: str, title: str) -> Row:
    settings = {"feedback": False}
    return Row(key=f"open:{codec}", title=f"change, no feedback, {title}", codec=codec, settings=settings)


def _fed(codec: str, title: str, group: str = "table") -> Row:
    return Row(key=codec, title=f"change + feedback, {title}", group=group, codec=codec)


def _warm(codec: str, title: str, warmup: int) -> Row:
    told = f"{title}, w = {warmup}"
    return Row(key=f"{codec}/w{warmup}", title=told, group="warm-up", codec=codec, settings={"warmup": warmup})


def _other(key: str, title: str, codec: str = "two_bit", *, policy: str | None = None, **settings: Any) -> Row:
    return Row(key=f"{codec}/{key}", title=title, group="ablations", codec=codec, settings=settings, policy=policy)


ROWS: Mapping[str, Row] = {
    row.key: row
    for row in (
        Row(key="whole", title="everything, whole"),
        Row(key="stale", title="stale (DistriFusion-like), whole", strategy="stale"),
        _direct("one_bit", "one bit"),
        _direct("two_bit", "two bits"),
        _open("one_bit", "one bit"),
        _open("two_bit", "two bits"),
        _fed("one_bit", "one bit"),
        _fed("two_bit", "two bits"),
        _fed("low_rank:4", "rank 4"),
        _fed("low_rank:8", "rank 8"),
        _fed("of_every:8", "one of eight"),
        _fed("low_rank:2", "rank 2", "codecs"),
        _fed("low_rank_int4:8", "rank 8 in four bits", "codecs"),
        _fed("low_rank_int4:16", "rank 16 in four bits", "codecs"),
        _fed("low_rank_int4:32", "rank 32 in four bits", "codecs"),
        _fed("of_every:4", "one of four", "codecs"),
        _fed("of_every:16", "one of sixteen", "codecs"),
        _fed("top_entries:0.05", "largest twentieth", "codecs"),
        *(_warm(codec, title, w) for codec, title in (("one_bit", "one bit"), ("two_bit", "two bits"))
          for w in (0, 1, 2, 4)),
        _other("order2", "one bit, predicted change", "one_bit", order=2),
        _other("order2", "two bits, predicted change", order=2),
        _other("order2", "rank 8, predicted change", "low_rank:8", order=2),
        _other("refresh", "one bit, whole in every eighth evaluation", "one_bit", refresh_every=8),
        _other("reconstructed", "two bits, own block as others know it", own_block="reconstructed"),
        _other("keys", "two bits, keys alone", policy="keys"),
        _other("values", "two bits, values alone", policy="values"),
        _other("inner", "two bits, first and last layer whole", policy="inner"),
    )
}  # fmt: skip
"""By key, in the order of the tables."""


def chosen_rows(keys: Sequence[str] = ()) -> list[Row]:
    """Those of `ROWS` with these keys, all by default. ValueError for a key that is none."""
    for key in keys:
        one_of(*ROWS, method=key)
    return [row for key, row in ROWS.items() if not keys or key in keys]
