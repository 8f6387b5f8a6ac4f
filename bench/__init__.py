"""The benchmarks: variants over prompts, each image with a verdict, with intervals; `world` is what they differ in."""
