"""The shape of a method: frozen hyper-parameters with two verbs, `setup` and `step` (or only `loss`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from acclimate.core.config import Configured, whole
from acclimate.core.memory import MemoryPolicy, policies
from acclimate.core.normalization import Normalization, normalizations
from acclimate.core.registry import Registry

if TYPE_CHECKING:
    from acclimate.core.state import State

__all__ = ["NEEDS", "Card", "Cost", "Method", "list_methods", "methods"]

NEEDS = (
    "backward",
    "batch norm",
    "norm",
    "convolution or norm",
    "residual blocks",
    "token sequence",
    "linear head",
    "augmentation",
    "source images",
)
"""What a method may need of a model or a machine; cards use these words."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a user must know before choosing a method."""

    summary: str
    paper: str
    needs: frozenset[str] = frozenset()
    batch_of_one: str = "yes"
    fails_when: str
    tags: Mapping[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        unknown = self.needs - set(NEEDS)
        if unknown:
            raise ValueError(f"unknown needs {sorted(unknown)} on a card. The words are: {', '.join(NEEDS)}.")


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one batch costs, without guard: passes over the batch, and state in copies of what it adapts.

    `selected`: forwards over chosen rows only, at most so many on top. `each`: what `forwards` and `backwards`
    are counted for, "batch" or, in methods that take one sample at a time, "sample": then `backwards` is the number
    for each sample of the batch. `bound`: multiply-adds of the dearest step as a multiple of F, one inference forward
    of the batch: a forward counts 1, a backward 1 for the gradients of activations and, where convolutions or
    linear layers learn, 1 for those of weights, over as many rows as it runs through. Counted by the tests.

    `copies` counts, by kind of state, how many times the bytes of the adapted tensors are kept; `per_tensor`,
    `per_class` and `numbers` how many single numbers (4 bytes) come on top for each adapted tensor, for each class
    and in all. `memory` is what a bank keeps, of kind "memory": how many "sample" (rows of the input), "feature"
    (rows of what the head takes), "class" (one number for each class), "class feature" (a feature for each class),
    "block feature" (one for each repeated block), "feature square" (as many numbers as a feature has, squared) and
    "number".
    """

    forwards: float
    backwards: float
    bound: float = 0
    selected: float = 0
    each: str = "batch"
    memory: Mapping[str, int] = field(default_factory=dict[str, int])
    copies: Mapping[str, float] = field(default_factory=dict[str, float])
    per_tensor: float = 0
    per_class: int = 0
    numbers: int = 0


@dataclass(frozen=True, kw_only=True)
class Method(Configured):
    """One way to move a model's weights or answers with the stream.

    Subclasses add their hyper-parameters as fields, and implement `setup`, `cost`, and either `loss`
    (the common case: forward, loss, backward, optimiser step) or the whole `step`. They never keep state
    of their own: what changes is declared in the `State` they are handed.

    Arguments common to all: `normalization`, how batch norms get their statistics (a name or an instance);
    `memory`, how backward keeps what it needs (a name or an instance; "stock" as PyTorch does);
    `steps` >= 1, how often the whole step is repeated on each batch; `episodic`, forget everything before
    each batch.
    """

    card: ClassVar[Card]
    normalization: str | Normalization = "batch"
    memory: str | MemoryPolicy = "stock"
    steps: int = 1
    episodic: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "normalization", normalizations.build(self.normalization))
        object.__setattr__(self, "memory", policies.build(self.memory))
        whole(1, steps=self.steps)
        self.check()

    def check(self) -> None:
        """ValueError for hyper-parameters out of range."""

    def config(self) -> dict[str, Any]:
        """All settings; the memory policy only if it is not PyTorch's own, which is no setting of a method."""
        values = super().config()
        return values if values["memory"] != {"name": "stock"} else {k: v for k, v in values.items() if k != "memory"}

    def setup(self, state: State) -> None:
        """Declare what adapts, what else is kept, and the optimiser."""

    def statistics(self, state: State) -> Normalization:
        """How batch norms get their statistics. Asked once, after `setup`: a method may find no use for its own."""
        return normalizations.build(self.normalization)

    def ready(self, state: State) -> None:
        """Called once on a new adaptation (not on a resumed one), when the model is as it will run: measure the source.

        What is found goes into declared state, so that a saved adaptation holds it.
        """

    def respond(self, state: State, x: Tensor) -> Tensor:
        """Logits of a frozen answer: with what was learned, learning nothing."""
        return state.forward(x)

    def plain(self) -> bool:
        """Whether a plain model with the adapted weights and statistics gives this method's answers."""
        return True

    def explain(self, state: State) -> str | None:
        """In words, what a method that chooses by the stream does now and why; None of one that does not choose."""
        return None

    def loss(self, state: State, x: Tensor, logits: Tensor) -> Tensor | None:
        """The loss of one batch, or None for nothing to learn."""
        return None

    def step(self, state: State, x: Tensor) -> Tensor:
        """Answer one batch and adapt to it; returns logits `[N, C, ...]` from before the update."""
        logits = state.forward(x)
        loss = self.loss(state, x, logits)
        if loss is not None:
            state.note(loss=loss)
            state.descend(state.gradients(loss))
        return logits

    def cost(self) -> Cost:
        """Passes and state of one repetition with these hyper-parameters.

        A normalisation that observes adds its `passes`, and one that keeps statistics adds those.
        """
        raise NotImplementedError(f"{type(self).__name__} states no cost. Return a Cost from cost().")


methods: Registry[Method] = Registry(
    "method", "acclimate.methods", Method, annexes=("acclimate.fields.vision_language.method:registry",)
)


def list_methods(**needs: bool) -> dict[str, Card]:
    """Cards of all registered methods by name, filtered by what they need.

    `list_methods(needs_backward=False)` gives those without a backward pass; spaces in the words of
    `NEEDS` become underscores. ValueError for an unknown filter.

    >>> "source" in list_methods(needs_backward=False)
    True
    """
    words = {f"needs_{need.replace(' ', '_')}": need for need in NEEDS}
    for name in needs:
        if name not in words:
            raise ValueError(f"unknown filter {name!r}. The filters are: {', '.join(words)}.")
    return {
        name: cls.card
        for name, cls in methods.classes().items()
        if all((words[key] in cls.card.needs) == wanted for key, wanted in needs.items())
    }
