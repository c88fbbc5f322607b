"""Both ends of a channel against section 2 of the specification written out, and what a channel refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from acclimate.compression.message import MessageCodec, Whole, message_codec
from acclimate.fields.diffusion.residual.channel import ResidualChannel
from acclimate.fields.diffusion.residual.packet import HEADER, fault_packet
from acclimate.fields.diffusion.residual.settings import ResidualSettings
from acclimate.wire.faults import Disagreement, GarbledPacket, LinkFault

N, C, STEPS = 12, 16, 8


class Passed(MessageCodec):
    """Like Whole, but not known as such."""

    name = "passed"

    def pack(self, tensor: Tensor, layout: Any, generator: Any) -> tuple[Tensor, ...]:
        return (tensor.clone(),)

    def unpack(self, parts: tuple[Tensor, ...], layout: Any) -> Tensor:
        return parts[0].clone()

    def form(self, shape: Any, dtype: torch.dtype) -> Any:
        return ((tuple(shape), dtype),)


def walk(steps: int = STEPS, dtype: torch.dtype = torch.float32, seed: int = 0) -> list[Tensor]:
    """A slow walk of matrices."""
    draw = np.random.default_rng(seed)
    start, other = draw.standard_normal((2, N, C))
    mixed = [np.cos(0.2 * step) * start + np.sin(0.2 * step) * other for step in range(steps)]
    return [torch.from_numpy(each).to(dtype) for each in mixed]


def two_bit(x: np.ndarray) -> np.ndarray:
    """3.3 of the specification, float64 with scales rounded to float16."""
    sizes = np.abs(x)
    c = sizes.mean(0).astype(np.float16).astype(np.float64)
    u = (sizes.mean(1) / sizes.mean()).astype(np.float16).astype(np.float64)
    scale = u[:, None] * c[None]
    return np.where(x >= 0, 1.0, -1.0) * np.where(sizes > scale, 2.0, 0.5) * scale


def written_out(
    steps: list[np.ndarray], order: int, feedback: bool, warmup: int, decay: float, refresh: int | None
) -> list[np.ndarray]:
    """What receivers know after each step; with feedback of order 1 by an explicit memory of errors [T4]."""
    known, before, error, drift = np.zeros((N, C)), np.zeros((N, C)), np.zeros((N, C)), np.zeros((N, C))
    out: list[np.ndarray] = []
    for step, a in enumerate(steps):
        if step < warmup or (refresh and (step - warmup) % refresh == refresh - 1):
            drift = a - known if step else drift
            known, error = a, np.zeros((N, C))
        elif order == 0:
            known = two_bit(a)
        elif order == 1 and feedback:
            wanted = (a - before) + error
            sent = two_bit(wanted)
            known, error = known + sent, wanted - sent
        elif order == 1:
            known = known + two_bit(a - before)
        else:
            predicted = known + drift
            sent = two_bit(a - predicted)
            known, drift = predicted + sent, decay * (drift + sent)
        before = a
        out.append(known)
    return out


@pytest.mark.parametrize(
    ("order", "feedback", "warmup", "refresh"),
    [
        (1, True, 1, None),
        (1, True, 0, None),
        (1, True, 2, 3),
        (1, False, 1, None),
        (0, True, 1, None),
        (0, True, 0, None),
        (2, True, 1, None),
        (2, True, 3, None),
        (2, True, 2, 2),
    ],
)
def test_a_channel_is_the_rule_written_out(
    order: Literal[0, 1, 2], feedback: bool, warmup: int, refresh: int | None
) -> None:
    channels = [
        ResidualChannel(
            "two_bit", order=order, feedback=feedback, warmup=warmup, drift_decay=0.25, refresh_every=refresh
        )
        for _ in range(2)
    ]
    owner, receiver = channels
    tensors = walk()
    expected = written_out([each.double().numpy() for each in tensors], order, feedback, warmup, 0.25, refresh)
    for step, (tensor, known) in enumerate(zip(tensors, expected, strict=True)):
        size = owner.next_size(tensor.shape, tensor.dtype)
        packet = owner.encode(tensor)
        assert len(packet) == size
        found = receiver.decode(packet, like=tensor)
        np.testing.assert_allclose(found.numpy(), known, rtol=0, atol=2e-3, err_msg=str(step))
        assert owner.held is not None
        assert torch.equal(owner.held, tensor if order == 1 and not feedback else found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_whole_is_exact_and_a_lossless_codec_is_so_to_rounding(dtype: torch.dtype) -> None:
    for codec, exact in ((Whole(), True), (Passed(), False)):
        owner, receiver = ResidualChannel(codec), ResidualChannel(codec)
        for tensor in walk(dtype=dtype):
            found = receiver.decode(owner.encode(tensor), like=tensor)
            tolerance = 0.0 if exact else 4 * torch.finfo(dtype).eps
            torch.testing.assert_close(found, tensor, rtol=0, atol=tolerance * float(tensor.abs().max()))


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 1000),
    codec=st.sampled_from(["one_bit", "two_bit", "whole"]),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
    order=st.sampled_from([0, 1, 2]),
    scale=st.sampled_from([0.0, 1e-6, 1.0, 300.0]),
)
def test_owner_and_receivers_stay_equal_bit_for_bit(
    seed: int, codec: str, dtype: torch.dtype, order: Literal[0, 1, 2], scale: float
) -> None:
    owner, *receivers = [ResidualChannel(codec, order=order) for _ in range(3)]
    for tensor in walk(4, dtype, seed):
        packet = owner.encode(tensor * scale)
        for receiver in receivers:
            receiver.decode(packet.clone(), like=tensor)
            assert owner.held is not None and receiver.held is not None
            assert torch.equal(owner.held.view(torch.uint8), receiver.held.view(torch.uint8))
            assert receiver.checksum() == owner.checksum()


@pytest.mark.parametrize(
    ("codec", "feedback", "expected", "slack"),
    [
        ("one_bit", True, 0.114, 0.005),
        ("two_bit", True, 0.063, 0.005),
        ("one_bit", False, 0.66, 0.05),
        ("two_bit", False, 0.45, 0.05),
    ],
)
def test_the_error_settles_where_theory_says(codec: str, feedback: bool, expected: float, slack: float) -> None:
    """T5: an AR(1) process whose steps are 0.15 of its size; without feedback the error after 60 steps."""
    rho = 1 - 0.15**2 / 2
    owner, receiver = (ResidualChannel(codec, feedback=feedback) for _ in range(2))
    draw = np.random.default_rng(3)
    x = draw.standard_normal((256, 256))
    errors: list[float] = []
    for _ in range(60):
        tensor = torch.from_numpy(x).float()
        known = receiver.decode(owner.encode(tensor), like=tensor)
        errors.append(float((tensor - known).norm() / tensor.norm()))
        x = rho * x + np.sqrt(1 - rho**2) * draw.standard_normal(x.shape)
    assert (np.mean(errors[30:]) if feedback else errors[-1]) == pytest.approx(expected, abs=slack)


def test_batches_and_heads_are_folded_row_by_row() -> None:
    tensor = torch.arange(2 * 3 * 4 * 8, dtype=torch.float32).view(2, 3, 4, 8)
    packets = [ResidualChannel("two_bit", warmup=0).encode(tensor.view(s)) for s in [(2, 3, 4, 8), (2, 3, 32), (6, 32)]]
    assert torch.equal(packets[0], packets[1])
    assert torch.equal(packets[0], packets[2])
    receiver = ResidualChannel("two_bit", warmup=0)
    assert receiver.decode(packets[0], like=tensor).shape == tensor.shape
    with pytest.raises(ValueError, match=r"\[B, n, H, D\]"):
        ResidualChannel().encode(torch.zeros(3))


def test_strided_input_is_as_good_as_contiguous() -> None:
    tensor = torch.randn(2, 4, 6, 8, generator=torch.Generator().manual_seed(0))
    turned = tensor.transpose(1, 2)
    assert torch.equal(ResidualChannel(warmup=0).encode(turned), ResidualChannel(warmup=0).encode(turned.contiguous()))


def test_a_base_is_not_the_caller_s_tensor() -> None:
    owner, tensor = ResidualChannel(), torch.ones(4, 8)
    packet = owner.encode(tensor)
    tensor.zero_()
    packet.zero_()
    assert owner.held is not None and bool((owner.held == 1).all())


def pair(**given: Any) -> tuple[ResidualChannel, ResidualChannel, list[Tensor]]:
    owner, receiver, tensors = ResidualChannel(**given), ResidualChannel(**given), walk()
    receiver.decode(owner.encode(tensors[0]), like=tensors[0])
    return owner, receiver, tensors


@pytest.mark.parametrize(
    "spoil",
    [
        lambda x: x[:-1],
        lambda x: x.half(),
        lambda x: x.view(2, N // 2, C),
        lambda x: x.double(),
        lambda x: torch.where(x == x.max(), torch.nan, x),
        lambda x: torch.where(x == x.max(), -torch.inf, x),
    ],
)
def test_what_is_refused_changes_nothing(spoil: Callable[[Tensor], Tensor]) -> None:
    owner, _, tensors = pair()
    before = owner.checksum()
    with pytest.raises(ValueError, match=r"reset\(\) first|not finite|expected float32"):
        owner.encode(spoil(tensors[1]))
    assert owner.checksum() == before
    owner.encode(tensors[1])


def test_a_packet_of_something_else_names_what_differs() -> None:
    owner, receiver, tensors = pair()
    late = owner.encode(tensors[1])
    later = owner.encode(tensors[2])
    before = receiver.checksum()
    with pytest.raises(Disagreement, match=r"another step 2 \(here 1\)"):
        receiver.decode(later)
    other = ResidualChannel("one_bit")
    other.encode(tensors[0])
    with pytest.raises(Disagreement, match="another codec"):
        receiver.decode(other.encode(tensors[1]))
    wide = ResidualChannel("two_bit")
    wide.encode(torch.zeros(N, 2 * C))
    with pytest.raises(Disagreement, match="another shape"):
        receiver.decode(wide.encode(torch.zeros(N, 2 * C)))
    half = ResidualChannel("two_bit")
    half.encode(tensors[0].half())
    with pytest.raises(Disagreement, match=r"another dtype torch.float16 \(here torch.float32\)"):
        receiver.decode(half.encode(tensors[1].half()))
    for cut in (late[:-1], late[:-4], torch.cat((late, late[:1]))):
        with pytest.raises(GarbledPacket, match="cut or joined"):
            receiver.decode(cut)
    with pytest.raises(GarbledPacket, match="no packet"):
        receiver.decode(torch.zeros_like(late))
    with pytest.raises(LinkFault, match="cannot go on"):
        receiver.decode(fault_packet(len(late)))
    assert receiver.checksum() == before
    assert torch.equal(receiver.decode(late), receiver.held)  # pyright: ignore[reportArgumentType]


def test_the_first_packet_needs_a_likeness() -> None:
    owner = ResidualChannel()
    packet = owner.encode(torch.ones(4, 8))
    with pytest.raises(ValueError, match="like"):
        ResidualChannel().decode(packet)


def test_a_reset_channel_is_a_new_one() -> None:
    owner, _, tensors = pair()
    first = [owner.encode(each) for each in tensors[1:4]]
    owner.reset()
    fresh = ResidualChannel()
    for tensor in tensors:
        assert torch.equal(owner.encode(tensor), fresh.encode(tensor))
    assert len(first) == 3


def test_a_codec_for_each_step() -> None:
    names = ["whole", "one_bit", "two_bit", "whole", "one_bit"]
    owner, receiver = ResidualChannel(names.__getitem__, warmup=0), ResidualChannel(names.__getitem__, warmup=0)
    for name, tensor in zip(names, walk(), strict=False):
        packet = owner.encode(tensor)
        assert len(packet) - HEADER == message_codec(name).size(tensor.shape, tensor.dtype)
        found = receiver.decode(packet, like=tensor)
        assert (name == "whole") == torch.equal(found, tensor)


@pytest.mark.parametrize("wrong", [
    {"warmup": -1}, {"order": 3}, {"drift_decay": 1.5}, {"refresh_every": 0}, {"codec": "sparse"}, {"codec": "none"},
    {"feedback": False, "order": 2}, {"feedback": False, "order": 0}, {"feedback": False, "checksum_every": 2},
    {"own_block": "both"},
])  # fmt: skip
def test_settings_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        ResidualSettings(**wrong)
