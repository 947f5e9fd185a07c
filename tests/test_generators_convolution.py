"""Convolutions whose weights learn by a matrix product: gradients of first and second order, as torch's own in bf16, and used only where they win."""

from __future__ import annotations

import pytest
import torch

from datagen.generators import convolution
from datagen.generators.convolution import Conv, Convolve, UpConv, windows

WAYS = [(3, 1, 1, False), (3, 2, 1, False), (5, 2, 2, False), (1, 1, 0, False), (4, 2, 1, True), (3, 1, 1, True)]


@pytest.mark.parametrize(("side", "stride", "padding", "transposed"), WAYS)
def test_gradients_of_first_and_second_order(side: int, stride: int, padding: int, transposed: bool) -> None:
    torch.manual_seed(0)
    shape = (3, 2, side, side) if transposed else (2, 3, side, side)
    tensors = [torch.randn(*size, dtype=torch.float64, requires_grad=True) for size in ((2, 3, 5, 4), shape, (2,))]
    assert torch.autograd.gradcheck(lambda *given: Convolve.apply(*given, stride, padding, transposed), tensors)
    assert torch.autograd.gradgradcheck(lambda *given: Convolve.apply(*given, stride, padding, transposed), tensors)


def test_windows_hold_what_lies_around_each_place() -> None:
    images = torch.arange(2 * 3 * 4 * 4, dtype=torch.float32).reshape(2, 3, 4, 4)
    rows = windows(images, 3, 1, 1)
    assert rows.shape == (2 * 4 * 4, 3 * 3 * 3)
    inside = rows.view(2, 4, 4, 3, 3, 3)[1, 2, 1]
    assert torch.equal(inside.permute(2, 0, 1), images[1, :, 1:4, 0:3]), "channels last, the place in the middle"
    assert rows.view(2, 4, 4, 3, 3, 3)[:, 0, :, 0].eq(0).all(), "zeros around the image"


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kind", [Conv, UpConv])
def test_in_bf16_it_learns_as_torch_does(kind: type[Conv] | type[UpConv], layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net = kind(32, 16, 4, stride=2, padding=1).to(memory_format=layout)
    images = torch.randn(8, 32, 4, 4).contiguous(memory_format=layout)
    used = []
    plain = convolution.convolved
    monkeypatch.setattr(convolution, "convolved", lambda *given, **how: used.append(1) or plain(*given, **how))
    found = {}
    for places in (0, 16):
        monkeypatch.setattr(convolution, "PLACES", places)
        net.zero_grad()
        x = images.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            painted = net(x)
            painted.float().square().sum().backward()
        assert x.grad is not None and net.weight.grad is not None and net.bias is not None and net.bias.grad is not None
        assert painted.dtype == torch.bfloat16 and net.weight.grad.dtype == torch.float32
        found[places] = painted.float(), x.grad, net.weight.grad, net.bias.grad
    assert used == [1]
    for ours, theirs in zip(found[16], found[0], strict=True):
        assert torch.dist(ours, theirs) < 0.01 * theirs.norm()


def test_elsewhere_it_is_torch_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution, "convolved", lambda *_, **__: pytest.fail("in fp32, without gradients, of large images or of few channels"))
    net, up, few = Conv(16, 16, 3, padding=1), UpConv(16, 16, 4, 2, 1), Conv(3, 16, 3, padding=1)
    small, large, grey = torch.randn(2, 16, 4, 4), torch.randn(2, 16, 5, 4), torch.randn(2, 3, 4, 4)
    for layer in (net, up):
        layer(small)
        with torch.autocast("cpu", torch.bfloat16):
            layer(large), few(grey)
            with torch.no_grad():
                layer(small)
