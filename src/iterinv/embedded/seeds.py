"""First seeds of the scenes that are never trained on, one range for each use."""

HELD_OUT = 1_000_000
"""Pictures that benchmarks invert, and previews of training; training stays below."""

SCENE_EDIT = 2_200_000
"""Tasks of SceneEdit."""

CAPTIONS = 3_000_000
"""Captions that are sampled to measure alignment."""

TRUE_PICTURES = 4_000_000
"""Renders that samples of :data:`CAPTIONS` are compared with."""

READER = 5_000_000
"""Renders that the reader is judged on."""
