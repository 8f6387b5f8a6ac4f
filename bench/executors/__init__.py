"""Where the jobs of a benchmark or a sweep run: in this process, in processes of this machine, or on a Ray cluster."""
