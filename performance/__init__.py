"""Measurements of refcore's speed and memory: `python -m performance`.

Every figure is a ratio of two measurements alternating in one process, or a peak reported by the allocator itself:

| module | contents |
| --- | --- |
| `measure` | paired timings with confidence intervals, memory peaks, floating-point operations, the machine's rate |
| `models` | the models that are timed: the embedded ones, and medium ones with random weights |
| `loops` | hand-written loops that refcore is compared with |
| `table` | the rows of `make bench` |
| `startup` | the time of `refcore invert` until its first step |
| `compiled` | the effect and cost of torch.compile |
| `verdict` | seconds until the judge is satisfied: the default preset against the paper's recipe |
| `real` | the paper's recipe at its real sizes: random weights, one command, peak resident memory |

docs/performance.md explains each row and lists the results.
"""
