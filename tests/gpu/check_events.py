#!/usr/bin/env python3
"""check_events.py RUN: reads a run's event files with TensorBoard's own reader and compares them with metrics.csv."""
import csv
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

run = sys.argv[1]
events = EventAccumulator(run)
events.Reload()
rows = {int(r["step"]): r for r in csv.DictReader(open(run + "/metrics.csv"))}
for tag in ("loss", "grad_norm", "lr", "val_loss"):
    points = {e.step: e.value for e in events.Scalars(tag)} if tag in events.Tags()["scalars"] else {}
    expected = {s: float(r[tag]) for s, r in rows.items() if r[tag]}
    assert points.keys() == expected.keys(), (tag, sorted(points), sorted(expected))
    worst = max((abs(points[s] - v) / max(abs(v), 1e-30) for s, v in expected.items()), default=0)
    assert worst < 1e-6, (tag, worst)
    print(f"{tag}: {len(points)} points agree")
