"""dovetail makes a neural network fit its hardware."""

__version__ = "0.1.0"
