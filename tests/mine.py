"""A family outside the tree, as a user writes one: class means plus noise, learnt by gradient steps."""

from __future__ import annotations

import types

import torch
from torch import nn

from datagen.contracts import Stage


class Mine:
    """Each class is a learnt picture and a learnt scale of pixel noise."""

    paper = "none: an example"
    kept = ("painter",)
    explained = types.MappingProxyType({"squares": "mean squared error"})

    def plan(self, spec):
        return {"batch": 8, "learning_rate": 0.05}

    def noise(self, spec):
        return spec.shape[0] * spec.shape[1] * spec.shape[2]

    def stages(self, spec):
        return [Stage("means", self.build, self.step, averaged=("painter",))]

    def build(self, state):
        painter = nn.Embedding(state.spec.classes, self.noise(state.spec))
        state.modules["painter"] = painter
        state.optimizers["painter"] = torch.optim.Adam(painter.parameters(), lr=state.spec.recipe.learning_rate)

    def step(self, state, images, labels, done):
        loss = (state.modules["painter"](labels) - images.flatten(1)).square().mean()
        state.optimizers["painter"].zero_grad()
        loss.backward()
        state.optimizers["painter"].step()
        return {"squares": loss.detach()}

    def finish(self, state, images):
        pass

    def sample(self, state, labels, noise, spread, guidance):
        return (state.modules["painter"](labels) + 0.1 * spread * noise).unflatten(1, state.spec.shape).clamp(-1, 1)
