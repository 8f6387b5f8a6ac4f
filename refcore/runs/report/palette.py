"""The colours of the pages, by day and by night."""

from __future__ import annotations

LIGHT = {
    "ground": "#f6f5f1",
    "panel": "#ffffff",
    "ink": "#1b1a17",
    "soft": "#5b5850",
    "line": "#d9d5cb",
    "accent": "#1f56a8",
    "good": "#1a6b36",
    "bad": "#b02a20",
    "mark": "#fdf0c4",
}
DARK = {
    "ground": "#131416",
    "panel": "#1c1e21",
    "ink": "#ececea",
    "soft": "#aaa89f",
    "line": "#383b40",
    "accent": "#8db4f7",
    "good": "#77d394",
    "bad": "#f39a90",
    "mark": "#463c14",
}
SAMPLES = {
    "light": ("#1f56a8", "#b4480f", "#1a6b36", "#8a2f8f", "#8a6400", "#0b6f7d", "#b02a5b", "#4c4a45"),
    "dark": ("#8db4f7", "#f5a66f", "#77d394", "#dc9be0", "#e0c15a", "#6fcfdc", "#f59ab9", "#c4c2bb"),
}
"""Of the lines of samples, in their order."""
DASHES = ("", "7 4", "2 4", "10 3 2 3", "12 5", "4 2", "1 5", "9 3 2 3 2 3")
"""Of the same lines, so that no line is told by its colour alone."""


def style() -> str:
    """The colours as custom properties of CSS."""
    themes = [(":root", LIGHT, "light"), ("@media (prefers-color-scheme: dark) { :root", DARK, "dark")]
    lines = []
    for head, theme, name in themes:
        own = [f"--{key}: {value};" for key, value in theme.items()]
        own += [f"--sample-{i}: {value};" for i, value in enumerate(SAMPLES[name])]
        lines.append(f"{head} {{ {' '.join(own)} }}" + (" }" if name == "dark" else ""))
    dashes = [
        f".line-{i} {{ stroke: var(--sample-{i}); stroke-dasharray: {d or 'none'}; }}" for i, d in enumerate(DASHES)
    ]
    return "\n".join([*lines, *dashes])
