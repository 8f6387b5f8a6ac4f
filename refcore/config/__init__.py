"""The config of a run as data: one file a section, presets, and YAML settings."""
