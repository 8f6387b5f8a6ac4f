"""How fast refcore is and how little memory it takes, measured: `python -m performance`.

Every figure is a ratio of two things done in one process, in turn, or a peak that the allocator itself reports:

| module | what lives there |
| --- | --- |
| `measure` | paired timings with intervals, peaks of memory, floating-point operations, the machine's rate |
| `models` | the models that are timed: the embedded ones, and medium ones of random weights |
| `loops` | what refcore is compared with: loops written by hand, to be read from top to bottom |
| `table` | the rows of `make bench` |
| `verdict` | seconds until the judge is content: the default preset beside the paper's recipe |
| `real` | the paper's recipe at its real sizes: random weights, one command line, peak resident memory |

docs/performance.md says what each row means and what came out.
"""
