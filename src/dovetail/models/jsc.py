"""Two small networks of jet substructure classification (JSC): 16 features in, 5 classes out."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["JscThreeLinear", "JscTiny"]

FEATURES = 16
CLASSES = 5


class _SequentialBlocks(nn.Module):
    """Layers in a `Sequential` called `seq_blocks`, so that names are `seq_blocks.0`, `seq_blocks.1`, ..."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.seq_blocks = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [batch, classes] of features [batch, 16]."""
        return self.seq_blocks(x)  # type: ignore[no-any-return]


class JscTiny(_SequentialBlocks):
    """BatchNorm1d(16), ReLU, Linear(16, classes), ReLU.

    Args:
        classes: Outputs.

    Source: LogicNets' JSC networks (github.com/Xilinx/logicnets), as MASE's `jsc-tiny`.
    """

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__(nn.BatchNorm1d(FEATURES), nn.ReLU(), nn.Linear(FEATURES, classes), nn.ReLU())


class JscThreeLinear(_SequentialBlocks):
    """BatchNorm1d(16), ReLU, Linear(16, h1), ReLU, Linear(h1, h2), ReLU, Linear(h2, classes), ReLU.

    With h1 = 32 and h2 = 64: 3,013 parameters.

    Args:
        h1: Width of the first hidden layer.
        h2: Width of the second hidden layer.
        classes: Outputs.
    """

    def __init__(self, h1: int = 32, h2: int = 64, classes: int = CLASSES) -> None:
        super().__init__(
            nn.BatchNorm1d(FEATURES),
            nn.ReLU(),
            nn.Linear(FEATURES, h1),
            nn.ReLU(),
            nn.Linear(h1, h2),
            nn.ReLU(),
            nn.Linear(h2, classes),
            nn.ReLU(),
        )
