"""The benchmark behind `gpumlp bench`: gpumlp beside baselines, limits and other libraries.

results       what was measured, as JSON
statistics    medians, quartiles, ratios
series        cases that differ in one size
compare       two runs: what became slower beyond the noise
tables        a run as Markdown; plots: as figures; page: as one HTML page
workloads     the networks that times are taken on, and a training step on each
baselines     slow ways to the deltas
limits        the matrix products alone, the bandwidth, the lower limit of a step
peers         the same steps in other libraries, from benchmarks/peers
quiet         whether the machine was
timing        warm-up, samples, turns
contest       one case: who takes part, and all its samples
recursion     suite "recursion": the deltas alone
steps         suites "steps" and "growth": whole training steps
suites        which cases, in which order
environment   what a result depends on
"""
