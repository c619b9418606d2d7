"""CUDA devices through CuPy: the only room that imports cupy, nvmath or cuda."""
