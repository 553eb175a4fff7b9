#!/usr/bin/env python3
"""compare_losses.py RUN REFERENCE TOLERANCE: the largest relative difference between two runs' losses, step by step."""
import csv
import sys


def losses(run):
    return {int(r["step"]): float(r["loss"]) for r in csv.DictReader(open(run + "/metrics.csv")) if r["loss"]}


a, b = losses(sys.argv[1]), losses(sys.argv[2])
steps = sorted(a.keys() & b.keys())
worst = max(abs(a[s] - b[s]) / b[s] for s in steps)
print(f"{sys.argv[1]} against {sys.argv[2]}: {len(steps)} steps, loss {b[steps[0]]:.4f} to {b[steps[-1]]:.4f}, "
      f"largest relative difference {worst:.2e}")
sys.exit(worst > float(sys.argv[3]))
