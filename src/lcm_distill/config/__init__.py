"""The configuration of a run: typed, documented at each key and validated once, when it is loaded."""

from lcm_distill.config.assignments import Assignment, named
from lcm_distill.config.evaluation import EvaluateConfig, ScheduleConfig
from lcm_distill.config.inputs import (
    CacheConfig,
    DataConfig,
    DiffusionConfig,
    Dtype,
    EncodersConfig,
    ModelConfig,
    NetworkConfig,
    Weights,
)
from lcm_distill.config.loading import load_file, load_preset, parse, presets, read_given, require_preset, summary
from lcm_distill.config.objectives import LoraSettings
from lcm_distill.config.parsing import validate
from lcm_distill.config.run import Config
from lcm_distill.config.section import SCHEMA_VERSION, Section
from lcm_distill.config.toml_text import read_toml
from lcm_distill.config.training import DistillConfig, EngineConfig, OptimiserConfig, PretrainConfig

__all__ = [
    "SCHEMA_VERSION", "Assignment", "CacheConfig", "Config", "DataConfig", "DiffusionConfig", "DistillConfig", "Dtype",
    "EncodersConfig", "EngineConfig", "EvaluateConfig", "LoraSettings", "ModelConfig", "NetworkConfig",
    "OptimiserConfig", "PretrainConfig", "ScheduleConfig", "Section", "Weights", "load_file", "load_preset", "named",
    "parse", "presets", "read_given", "read_toml", "require_preset", "summary", "validate",
]  # fmt: skip
