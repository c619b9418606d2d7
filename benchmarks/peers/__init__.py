"""The same training steps in other libraries: a file for each, which nothing imports but `gpumlp.bench.peers`.

Every class in a file's PEERS starts from given weights, takes the rows of `workload.data()` in batches gathered from
memory, and trains by Adam or by momentum. `why_absent(device)` tells why a library cannot take part.
"""
