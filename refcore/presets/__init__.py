"""The presets that ship with refcore, as YAML files."""
