"""How a family of transformers is taken apart: which attentions travel, what is cut over devices, and where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from acclimate.fields.diffusion.attach.processor import Exchanged

__all__ = ["Plan"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A plan for one class of transformers.

    Tokens are cut where they enter the first block and gathered after the output layer; whatever lies before and
    after (embeddings of patches, positions, text and time) is computed in full on every device.

    Arguments:
        transformer: name of the class.
        processor: stands in for the processors of self-attention.
        replaces: names of the processors that it knows how to stand in for.
        blocks: attributes that hold the lists of blocks, in the order of the forward.
        attentions: names of the modules of self-attention in a block; a block may lack some.
        output: name of the layer after which tokens are gathered.
        joint: whether text tokens are part of the sequence, so that they are cut, too.
        rotary: "joint" where rotary embeddings are those of text and image, "image" where they are of the image alone.
            Ignored where a transformer has none.
        whole: arguments of the forward that hold one value per token, which nobody cuts: they must be None if sharded.
    """

    transformer: str
    processor: type[Exchanged]
    replaces: tuple[str, ...]
    blocks: tuple[str, ...] = ("transformer_blocks",)
    attentions: tuple[str, ...]
    output: str = "proj_out"
    joint: bool = False
    rotary: str = "image"
    whole: tuple[str, ...] = ()

    def each_block(self, transformer: nn.Module) -> list[nn.Module]:
        """The blocks in their order."""
        return [block for name in self.blocks for block in transformer.get_submodule(name).children()]

    def each_attention(self, transformer: nn.Module) -> list[Any]:
        """The modules of self-attention in their order; the layer of the exchange is the place in this list.

        Raises:
            ValueError: one whose processor is not the usual one, or whose projections are fused.
        """
        blocks = self.each_block(transformer)
        found = [getattr(block, name, None) for block in blocks for name in self.attentions]
        every = [module for module in found if module is not None]
        for attn in every:
            self._check(attn)
        return every

    def _check(self, attn: Any) -> None:
        name = type(attn.processor).__name__
        if isinstance(attn.processor, Exchanged):
            raise ValueError("The transformer is compacted already. Call detach() on what compact() returned, first.")
        if name not in self.replaces:
            raise ValueError(
                f"An attention of the transformer has the processor {name}; expected {' or '.join(self.replaces)}. "
                "Remove adapters that bring processors of their own, such as IP-Adapter."
            )
        if getattr(attn, "fused_projections", False):
            raise ValueError(
                "The projections of the transformer are fused; expected them apart. Call unfuse_qkv_projections()."
            )
