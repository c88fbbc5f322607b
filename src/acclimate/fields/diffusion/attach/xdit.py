"""xDiT's long-context attention through an exchange of this library."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import Any

from torch import Tensor, nn

from acclimate.fields.diffusion.attach.evaluated import Evaluated
from acclimate.fields.diffusion.exchange.exchange import Exchange

__all__ = ["CompactedXDiT", "LongContextAttention"]

_MODULE, _CLASS, _RING = "xfuser.core.long_ctx_attention", "xFuserLongContextAttention", "ring_attn_fn"


class LongContextAttention:
    """Stands in for the ring attention that xDiT calls with its own `[B, n, H, D]` of each rank.

    The exchange's `size` is the ring degree, and its ranks are those of the ring. Heads that an all-to-all has moved
    beforehand stay where they are: their bytes are not compressed.

    Arguments:
        exchange: between processes.
        layer: number of the attention, the same on all ranks.
    """

    def __init__(self, exchange: Exchange, layer: int) -> None:
        self._exchange, self._layer = exchange, layer

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, *, softmax_scale: float | None = None, **others: Any
    ) -> Tensor:
        """Own queries over the tokens of all ranks, `[B, n, H, D]`.

        Arguments:
            query, key, value: of the own tokens.
            softmax_scale: `1 / sqrt(D)` by default.
            others: what xDiT passes besides, such as groups and kernels; none of it is needed.

        Raises:
            ValueError: causal attention, or text that is held by all ranks (`joint_tensor_key`): only what is cut over
                ranks stays equal on all of them.
        """
        if others.get("causal"):
            raise ValueError("found causal=True, expected attention among all tokens, as diffusion transformers use.")
        if others.get("joint_tensor_key") is not None:
            raise ValueError("found joint_tensor_key, text that every rank holds; expected it to be cut over ranks.")
        return self._exchange.attend(query, key, value, layer=self._layer, scale=softmax_scale)


class CompactedXDiT(Evaluated):
    """A transformer that xDiT has wrapped, with an exchange in all its long-context attentions.

    Arguments:
        transformer: whose processors hold xDiT's long-context attention; xDiT cuts and gathers its tokens.
        exchange: between the ranks of xDiT's ring.
        branches: forwards in each step; see `Branches`.

    Raises:
        ImportError: xDiT is not installed.
        ValueError: no attention of the transformer is one of xDiT's.
    """

    def __init__(self, transformer: nn.Module, exchange: Exchange, branches: int | None = None) -> None:
        found = _long_context(transformer)
        super().__init__(transformer, exchange, branches)
        for layer, held in enumerate(found):
            self._undo.append(partial(setattr, held, _RING, getattr(held, _RING)))
            setattr(held, _RING, LongContextAttention(exchange, layer))


def _long_context(transformer: nn.Module) -> list[Any]:
    try:
        kind = getattr(import_module(_MODULE), _CLASS)
    except ImportError as error:
        raise ImportError("Compressed exchange in xDiT needs the package 'xfuser': pip install xfuser.") from error
    processors = [module.processor for module in transformer.modules() if hasattr(module, "processor")]
    found = [each for processor in processors for each in _parts(processor) if isinstance(each, kind)]
    if not found:
        raise ValueError(
            f"No processor of {type(transformer).__name__} holds an {_CLASS}; expected one in each attention. Let xDiT "
            "wrap the pipeline first, with a ring degree of 2 or more."
        )
    return found


def _parts(processor: Any) -> list[Any]:
    children = processor.children() if isinstance(processor, nn.Module) else ()
    return [*vars(processor).values(), *children]
