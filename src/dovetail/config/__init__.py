"""The configuration: one TOML file <-> frozen dataclasses, which Python code can build as well."""

from __future__ import annotations

from dovetail.config.load import decode_config, load_config, read_config, to_toml
from dovetail.quantities import Limit, parse_bytes, parse_duration_s, parse_limit
from dovetail.settings import (
    DataConfig,
    EvaluationConfig,
    MetricConfig,
    ModelConfig,
    PrecisionRule,
    RunConfig,
    SearchConfig,
    SpaceConfig,
    TrainConfig,
    WidthRule,
)

__all__ = [
    "DataConfig",
    "EvaluationConfig",
    "Limit",
    "MetricConfig",
    "ModelConfig",
    "PrecisionRule",
    "RunConfig",
    "SearchConfig",
    "SpaceConfig",
    "TrainConfig",
    "WidthRule",
    "decode_config",
    "load_config",
    "parse_bytes",
    "parse_duration_s",
    "parse_limit",
    "read_config",
    "to_toml",
]
