"""The peers' servers: each as short as its framework's documentation makes it.

They run in environments of their own, with the repository's root and `proto` on the path:
`python -m benchmarks.compare.peers.NAME`. The weights' file comes in BENCH_WEIGHTS, the port in
BENCH_PORT.
"""
