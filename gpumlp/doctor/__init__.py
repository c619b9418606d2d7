"""The examination behind `gpumlp doctor`: whether a CUDA device computes what NumPy does, and how fast.

report       what was found, as JSON and as Markdown
examine      the order of the examination
agreement    every definition on the device against NumPy
replays      steps recorded as graphs
speed        nodes, copies, products and steps
comparison   the same steps in PyTorch and JAX
"""
