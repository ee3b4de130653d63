"""A network whose class a pickle can name, wherever it is loaded."""

import torch
from torch import Tensor, nn


class Tied(nn.Module):
    """Something of everything that a state dict is made of, and of what it leaves out."""

    mask: Tensor
    cache: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(6, 4)
        self.conv = nn.Sequential(nn.Conv1d(4, 4, 3), nn.BatchNorm1d(4))
        self.head = nn.Linear(4, 6, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("mask", torch.ones(3, dtype=torch.bool))
        self.register_buffer("cache", torch.full((3,), 5.0), persistent=False)
