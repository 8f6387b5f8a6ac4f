"""What is shown of a job, as HTML: state, pictures, curves, scores. All text is escaped."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape

from refcore.runs.durations import in_words
from refcore.runs.jobs import OVER, Seen

WIDTH, HEIGHT, EDGE = 640, 180, 8
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7a7a7a", "#b8a800")
"""Okabe and Ito's, which colour-blind readers tell apart."""
STATES = {
    "waiting": "waits in the queue",
    "loading": "loads its models",
    "starting": "makes its start",
    "running": "goes on",
    "paused": "is paused",
    "finished": "is finished",
    "stopped": "was stopped; what it has made is kept",
    "failed": "failed",
}


def status(seen: Seen | None) -> str:
    """The state in a line, for everybody: it is announced to screen readers."""
    if seen is None:
        return '<p class="status" role="status">No run yet. Type a prompt and press Start.</p>'
    share = 100 * seen.step / max(1, seen.planned)
    bar = f'<progress max="100" value="{share:.0f}" aria-label="steps done">{share:.0f} %</progress>'
    name = f"Run {seen.number}" if seen.number else "The run"
    done = [f"{seen.step} of {seen.planned} steps", *_times(seen)]
    text = f"{name} {STATES[seen.state]}: {', '.join(done)}."
    wrong = f'<p class="wrong" role="alert">{escape(seen.error)}</p>' if seen.error else ""
    return f'<p class="status" role="status">{text}</p>{bar}{wrong}'


def _times(seen: Seen) -> list[str]:
    """The time of the steps so far and, while they go on, of those that are left; nothing before the first one."""
    if not seen.step:
        return []
    left = seen.seconds / seen.step * (seen.planned - seen.step)
    return [in_words(seen.seconds), *([f"about {in_words(left)} left"] if seen.state not in OVER else [])]


def pictures(seen: Seen | None, samples: Sequence[tuple[str, int]]) -> str:
    """The pictures so far, each with its prompt, seed, scores and verdict."""
    if seen is None or not seen.pictures:
        return '<p class="soft">The picture appears here.</p>'
    figures = []
    for i, (png, (prompt, seed)) in enumerate(zip(seen.pictures, samples, strict=False)):
        data = base64.b64encode(png).decode()
        caption = [f"{escape(prompt)}, seed {seed}"]
        if i < len(seen.scores):
            caption.append(", ".join(f"{escape(label)} {score:.3f}" for label, score in seen.scores[i].items()))
        verdict = seen.verdicts[i] if i < len(seen.verdicts) else None
        if verdict is not None:
            caption.append(f"the judge says {'yes' if verdict else 'no'}")
        figures.append(
            f'<figure><img src="data:image/png;base64,{data}" alt="{escape(prompt, quote=True)}, seed {seed}, after '
            f'{seen.step} steps"><figcaption>{"<br>".join(caption)}</figcaption></figure>'
        )
    return f'<div class="pictures">{"".join(figures)}</div>'


def curves(found: Mapping[str, Sequence[tuple[int, float]]]) -> str:
    """One small chart a term, on a shared axis of steps."""
    last = max((points[-1][0] for points in found.values() if points), default=0)
    charts = [_chart(label, points, last, COLOURS[i % len(COLOURS)]) for i, (label, points) in enumerate(found.items())]
    return f'<div class="curves">{"".join(charts)}</div>' if charts else '<p class="soft">Losses appear here.</p>'


def weights(found: Mapping[str, float]) -> str:
    """The weight of each term in the last step, which a schedule may move as well."""
    if not found:
        return '<p class="soft">A weight that is moved acts from the next step on.</p>'
    told = ", ".join(f"{escape(label)} {weight:.3g}" for label, weight in found.items())
    return f'<p class="soft">Weights of the last step: {told}</p>'


def _chart(label: str, points: Sequence[tuple[int, float]], last: int, colour: str) -> str:
    values = [value for _, value in points]
    low, high = min(values), max(values)
    spread = high - low or 1.0
    places = [
        f"{EDGE + (WIDTH - 2 * EDGE) * step / max(1, last):.1f},"
        f"{HEIGHT - EDGE - (HEIGHT - 2 * EDGE) * (value - low) / spread:.1f}"
        for step, value in points
    ]
    told = f"Loss of {label}: {values[0]:.3g} at first, {values[-1]:.3g} now, between {low:.3g} and {high:.3g}"
    name = escape(label)
    return (
        f'<figure class="curve"><figcaption><b style="color:{colour}">&#9632;</b> {name} '
        f'<span class="soft">{values[0]:.3g} &rarr; {values[-1]:.3g}</span></figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(told, quote=True)}">'
        f'<polyline points="{" ".join(places)}" fill="none" stroke="{colour}" stroke-width="2.5" '
        f'vector-effect="non-scaling-stroke"/></svg></figure>'
    )
