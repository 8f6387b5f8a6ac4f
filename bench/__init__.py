"""The benchmarks: variants over the prompts of a task (`task`, `tasks`), a verdict per image, rates with intervals."""
