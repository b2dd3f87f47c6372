"""Small models of what people have beside linear layers and convolutions."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dovetail.graph import Graph, trace

__all__ = ["ODD", "Net", "made"]


class Net(nn.Module):
    """Modules by name and the code that calls them."""

    def __init__(self, code: Callable[..., Any], **modules: nn.Module | nn.Parameter):
        super().__init__()
        self.code = code
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, *inputs: Tensor) -> Any:
        return self.code(self, *inputs)


class Heads(nn.Module):
    """Attention of four heads, with their number and width as attributes, as in transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.num_attention_heads, self.attention_head_size = 4, 3
        self.i, self.o = nn.Linear(6, 10), nn.Linear(12, 3)
        self.q, self.k, self.v = nn.Linear(10, 12), nn.Linear(10, 12), nn.Linear(10, 12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.i(x)
        shape = (*x.shape[:2], self.num_attention_heads, self.attention_head_size)
        q, k, v = (layer(x).view(shape).transpose(1, 2) for layer in (self.q, self.k, self.v))
        x = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        return self.o(x.reshape(*x.shape[:2], -1)).mean(1)


def gated(s: Net, x: Tensor) -> Tensor:
    gate = torch.softmax(s.gate(x), 1)
    return gate[:, 0:1] * s.a(x) + gate[:, 1:2] * s.b(x)


def attention(s: Net, x: Tensor) -> Tensor:
    return s.o(torch.softmax(s.q(x) @ s.k(x).transpose(1, 2) / 4, -1) @ s.v(x)).mean(1)


def mixer(s: Net, x: Tensor) -> Tensor:
    return s.fc((x + s.t2(F.gelu(s.t1(x.transpose(1, 2)))).transpose(1, 2)).mean(1))


def unet(s: Net, x: Tensor) -> Tensor:
    down = s.a(x)
    return s.o(torch.cat([down, F.interpolate(s.b(F.max_pool2d(down, 2)), scale_factor=2)], 1))


def head(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))


def two_layers(first: nn.Module) -> nn.Sequential:
    return nn.Sequential(first, nn.ReLU(), nn.Linear(8, 3))


IMAGE, ROW, SERIES, IDS = (2, 3, 8, 8), (2, 4), (2, 5, 6), None

ODD: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...] | None]] = {
    "conv1d": (lambda: Net(lambda s, x: s.fc(s.c(x).mean(2)), c=nn.Conv1d(5, 8, 3), fc=nn.Linear(8, 3)), SERIES),
    "conv-transpose": (
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.GELU(), nn.ConvTranspose2d(8, 6, 4, 2), nn.Conv2d(6, 3, 1)),
        IMAGE,
    ),
    "group-norm": (lambda: head(nn.Conv2d(3, 8, 3), nn.GroupNorm(4, 8), nn.SiLU()), IMAGE),
    "instance-norm": (lambda: head(nn.Conv2d(3, 8, 3), nn.InstanceNorm2d(8, affine=True), nn.PReLU(8)), IMAGE),
    "pixel-shuffle": (lambda: nn.Sequential(nn.Conv2d(3, 16, 3), nn.PixelShuffle(2), nn.Conv2d(4, 3, 3)), IMAGE),
    "u-net": (lambda: Net(unet, a=nn.Conv2d(3, 8, 1), b=nn.Conv2d(8, 12, 1), o=nn.Conv2d(20, 2, 1)), IMAGE),
    "lstm": (
        lambda: Net(lambda s, x: s.fc(s.l(x)[0][:, -1]), l=nn.LSTM(6, 8, 2, batch_first=True), fc=nn.Linear(8, 3)),
        SERIES,
    ),
    "gru-after-linear": (
        lambda: Net(
            lambda s, x: s.fc(s.l(s.i(x))[0].mean(1)),
            i=nn.Linear(6, 10),
            l=nn.GRU(10, 8, batch_first=True),
            fc=nn.Linear(8, 3),
        ),
        SERIES,
    ),
    "multihead-attention": (
        lambda: Net(
            lambda s, x: s.fc(s.a(x, x, x, need_weights=False)[0].mean(1)),
            a=nn.MultiheadAttention(6, 2, batch_first=True),
            fc=nn.Linear(6, 3),
        ),
        SERIES,
    ),
    "encoder-decoder": (
        lambda: Net(
            lambda s, x: s.fc(s.d(s.i(x), s.e(s.j(x))).mean(1)),
            i=nn.Linear(6, 8),
            j=nn.Linear(6, 8),
            e=nn.TransformerEncoderLayer(8, 2, 12, batch_first=True),
            d=nn.TransformerDecoderLayer(8, 2, 12, batch_first=True),
            fc=nn.Linear(8, 3),
        ),
        SERIES,
    ),
    "encoders": (
        lambda: nn.Sequential(
            nn.Linear(6, 8),
            nn.TransformerEncoderLayer(8, 2, 12, batch_first=True),
            nn.TransformerEncoderLayer(8, 2, 12, batch_first=True),
            nn.Linear(8, 3),
        ),
        SERIES,
    ),
    "keys-of-another-stream": (
        lambda: Net(
            lambda s, x: s.fc(s.a(s.i(x), s.j(x), s.j(x))[0].mean(1)),
            i=nn.Linear(6, 8),
            j=nn.Linear(6, 10),
            a=nn.MultiheadAttention(8, 2, kdim=10, vdim=10, batch_first=True),
            fc=nn.Linear(8, 3),
        ),
        SERIES,
    ),
    "norm-by-number": (
        lambda: Net(lambda s, x: s.fc(F.layer_norm(s.l(x), (8,))), l=nn.Linear(4, 8), fc=nn.Linear(8, 3)),
        ROW,
    ),
    "attention-by-hand": (
        lambda: Net(attention, q=nn.Linear(6, 16), k=nn.Linear(6, 16), v=nn.Linear(6, 8), o=nn.Linear(8, 3)),
        SERIES,
    ),
    "heads": (Heads, SERIES),
    "embedding": (lambda: Net(lambda s, x: s.fc(s.e(x).mean(1)), e=nn.Embedding(20, 8), fc=nn.Linear(8, 3)), IDS),
    "embedding-bag": (lambda: Net(lambda s, x: s.fc(s.e(x)), e=nn.EmbeddingBag(20, 8), fc=nn.Linear(8, 3)), IDS),
    "weight-norm": (lambda: two_layers(torch.nn.utils.parametrizations.weight_norm(nn.Linear(4, 8))), ROW),
    "glu": (lambda: nn.Sequential(nn.Linear(4, 16), nn.GLU(), nn.Linear(8, 3)), ROW),
    "einsum": (
        lambda: Net(
            lambda s, x: s.fc(torch.einsum("bi,oi->bo", x, s.w)), w=nn.Parameter(torch.randn(8, 4)), fc=nn.Linear(8, 3)
        ),
        ROW,
    ),
    "outer-product": (
        lambda: Net(
            lambda s, x: s.fc((s.a(x)[:, :, None] * s.b(x)[:, None, :]).flatten(1)),
            a=nn.Linear(4, 3),
            b=nn.Linear(4, 5),
            fc=nn.Linear(15, 3),
        ),
        ROW,
    ),
    "gate-cut-in-places": (
        lambda: Net(gated, gate=nn.Linear(4, 2), a=two_layers(nn.Linear(4, 8)), b=two_layers(nn.Linear(4, 8))),
        ROW,
    ),
    "top-3": (lambda: Net(lambda s, x: s.fc(s.l(x).topk(3, 1)[0]), l=nn.Linear(4, 8), fc=nn.Linear(3, 3)), ROW),
    "mixer": (lambda: Net(mixer, t1=nn.Linear(5, 8), t2=nn.Linear(8, 5), fc=nn.Linear(6, 3)), SERIES),
    "fft": (
        lambda: Net(lambda s, x: s.fc(torch.fft.rfft(s.l(x)).abs()), l=nn.Linear(4, 8), fc=nn.Linear(5, 3)), ROW
    ),
    "cumsum": (lambda: Net(lambda s, x: s.fc(s.l(x).cumsum(1)), l=nn.Linear(4, 8), fc=nn.Linear(8, 3)), ROW),
}  # fmt: skip


@cache
def made(name: str, batch: int = 2) -> tuple[nn.Module, Tensor, Graph]:
    """A model in eval mode with random weights, an input of a batch, and its graph."""
    build, shape = ODD[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build().eval()
        x = torch.randint(0, 20, (batch, 5)) if shape is None else torch.randn(batch, *shape[1:])
    return model, x, trace(model, (x[:2],))
