"""The config of a run as data: one file per section, presets, and YAML settings."""
