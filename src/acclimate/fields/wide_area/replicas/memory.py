"""What was not sent yet is kept, and sent when it has grown."""

from __future__ import annotations

import torch
from torch import Tensor

from acclimate.fields.wide_area.wire.entries import Entries, largest

__all__ = ["ErrorMemory"]


class ErrorMemory:
    """Error feedback of one vector: `v = e + g, D = C(v), e <- v - D` [S: 2.1].

    What is sent and what is kept always add up to all gradients so far; of a narrower wire type the rounding stays in
    e, too.

    Arguments:
        count: d.
        entries: which entries are sent, how.
        dtype, device: of the vector.
        feedback: False forgets what is not sent, for comparison.

    When it fails: `compress` raises ValueError for gradients that are not finite, and leaves e as it was.

    >>> memory = ErrorMemory(4, Entries())
    >>> indices, values = memory.compress(torch.tensor([1.0, -3.0, 2.0, 0.5]), 0.5)
    >>> indices.tolist(), values.tolist(), memory.vector.tolist()
    ([1], [-3.0], [1.0, 0.0, 2.0, 0.5])
    """

    def __init__(
        self,
        count: int,
        entries: Entries,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        *,
        feedback: bool = True,
    ) -> None:
        self.vector = torch.zeros(count, dtype=dtype, device=device)
        self.entries, self.feedback = entries, feedback

    def compress(self, gradient: Tensor, ratio: float) -> tuple[Tensor | None, Tensor]:
        """What to send of `e + g`: int64 indices `[k]` that ascend, and their values; or None and all values.

        Arguments:
            gradient: g, `[d]`; left as it is.
            ratio: of bits on the wire to those of the dense vector, in (0, 1].
        """
        memory = self.vector
        kept = self.entries.kept(ratio, memory.numel(), memory.dtype)
        whole = memory + gradient
        # A dense message looks at no magnitudes, and must be refused as well.
        indices = largest(whole, whole.numel() if kept is None else kept)
        if kept is None:
            values = self.entries.rounded(whole)
            whole = whole - values
            indices = None
        else:
            chosen = whole[indices]
            values = self.entries.rounded(chosen)
            whole[indices] = chosen - values
        if self.feedback:
            memory.copy_(whole)
        return indices, values.clone()
