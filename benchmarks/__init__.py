"""What the figures in README come from: ``python -m benchmarks.NAME`` prints and writes ratios measured in one run.

A package, not a mere folder, because Opacus installs one of the same name, which would be found first.
"""
