"""The parts of `benchmarks/serving.py`: servers, load, measurements, tables."""
