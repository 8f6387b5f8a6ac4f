"""From a config to images: loading, judging, one step's gradient, candidates, and the loop."""
