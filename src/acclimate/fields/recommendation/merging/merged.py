"""Several models as one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from acclimate.core.config import one_of
from acclimate.fields.recommendation.merging.how import HOW, checked_weights, merge_logits

__all__ = ["Merged", "merge"]


class Merged(nn.Module):
    """Gives its members' merged logits: `[B]` or `[B, 1]` for clicks, `[B, C]` for classes.

    Arguments: `members`, one or more, all of which take the same input and give logits of one shape; `how`, see
    `merge_logits`; `weights`, of any sum, equal ones by default.

    Parameters are the members' own: what is trained as one is the published group trainer.
    """

    weights: Tensor

    def __init__(
        self, members: Sequence[nn.Module], how: str = "logit_mean", weights: Sequence[float] | Tensor | None = None
    ) -> None:
        super().__init__()
        one_of(*HOW, how=how)
        if not members:
            raise ValueError("there are no members to merge; expected one or more.")
        for place, member in enumerate(members):
            if not isinstance(member, nn.Module):
                raise ValueError(f"member {place} is of type {type(member).__name__}, expected a torch.nn.Module.")
        self.members = nn.ModuleList(members)
        self.how = how
        self.register_buffer("weights", checked_weights(weights, how, len(members)))

    def forward(self, inputs: Tensor) -> Tensor:
        return merge_logits(self.each(inputs), self.how, self.weights)

    def each(self, inputs: Tensor) -> Tensor:
        """The members' own logits, `[M, ...]`. ValueError where their shapes differ."""
        found = [member(inputs) for member in self.members]
        if any(each.shape != found[0].shape for each in found):
            told = ", ".join(f"{type(m).__name__} {list(z.shape)}" for m, z in zip(self.members, found, strict=True))
            raise ValueError(f"members answer in different shapes: {told}. Merge models of the same labels.")
        return torch.stack(found)


def merge(
    members: Sequence[nn.Module], how: str = "logit_mean", *, weights: Sequence[float] | Tensor | None = None
) -> Merged:
    """Merge trained models into one, an ordinary `nn.Module` in evaluation mode.

    By default the mean of logits (TTS4CTR, arXiv 2512.07650): of different architectures, or of one architecture
    trained from different seeds. The mean's log loss is never above the members' mean log loss, since log loss is
    convex in the logit; AUC has no such guarantee, and neither has the best member.

    It costs the sum of the members' forwards, and holds all their embedding tables. See `Merged` for arguments and
    errors.

    >>> one = merge([torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)])
    >>> one(torch.zeros(4, 3)).shape
    torch.Size([4, 2])
    """
    return Merged(members, how, weights).eval()
