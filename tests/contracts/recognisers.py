"""What every recogniser must do: build a net for any shape whose logits follow the classes and can be trained."""

from __future__ import annotations

from typing import Any

import torch


def check(recogniser_class: Any) -> None:
    """Build for odd sizes, grey and colour, one image and many, and take one gradient."""
    recogniser = recogniser_class()
    for classes, shape in [(2, (1, 8, 8)), (10, (3, 31, 17)), (3, (3, 64, 48))]:
        torch.manual_seed(0)
        net = recogniser.build(classes, shape)
        images = torch.randn(4, *shape)
        logits = net(images)
        assert logits.shape == (4, classes)
        torch.nn.functional.cross_entropy(logits, torch.arange(4) % classes).backward()
        gradients = [p.grad for p in net.parameters() if p.requires_grad]
        assert all(g is not None and torch.isfinite(g).all() for g in gradients), "every weight is trained"
        net.eval()
        with torch.no_grad():
            assert torch.allclose(net(images)[:1], net(images[:1]), atol=1e-4), "an image's logits do not depend on its neighbours"
