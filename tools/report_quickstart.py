#!/usr/bin/env python3
"""Reads a run's metrics.csv and the scores of candidate answers; prints loss before and after, the accuracy and the loss
curve, and writes the curve as an SVG.

    report_quickstart.py RUN_FOLDER CANDIDATES.jsonl SCORES.jsonl CURVE.svg
"""
import csv
import json
import pathlib
import sys


def read_curve(path):
    """(step, training loss) and (step, validation loss), where there are values."""
    with open(path, encoding="utf-8") as rows:
        table = list(csv.DictReader(rows))
    return ([(int(row["step"]), float(row["loss"])) for row in table if row["loss"]],
            [(int(row["step"]), float(row["val_loss"])) for row in table if row["val_loss"]])


def read_lines(path):
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def accuracy(candidates, scores):
    """Share of records whose right action has the highest log-probability, and their count."""
    best = {}
    for score in scores:
        candidate = candidates[score["index"]]
        choice = (score["sum_logprob"], candidate["action"] == candidate["correct"])
        best[candidate["record"]] = max(best.get(candidate["record"], choice), choice)
    return sum(right for _, right in best.values()) / len(best), len(best)


def ascii_curve(points, width=72, height=12):
    top = max(loss for _, loss in points)
    last = points[-1][0]
    grid = [[" "] * width for _ in range(height)]
    for step, loss in points:
        column = min(width - 1, step * width // (last + 1))
        grid[min(height - 1, int((1 - loss / top) * height))][column] = "*"
    lines = [f"{top * (1 - i / height):7.2f} |{''.join(row)}" for i, row in enumerate(grid)]
    return "\n".join(lines + ["   0.00 +" + "-" * width, f"         step 1{f'step {last}':>{width - 6}}"])


def svg(training, validation, width=720, height=360, margin=48):
    last = max(step for step, _ in training + validation)
    top = 1.05 * max(loss for _, loss in training + validation)

    def place(point):
        x = margin + (width - 2 * margin) * point[0] / last
        y = height - margin - (height - 2 * margin) * point[1] / top
        return f"{x:.1f},{y:.1f}"

    def line(points, colour):
        return f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{" ".join(map(place, points))}"/>'

    def text(x, y, words, colour="#333", anchor="start"):
        return f'<text x="{x}" y="{y}" fill="{colour}" text-anchor="{anchor}">{words}</text>'

    ticks = []
    for i in range(5):
        x, y = place((last * i / 4, top * i / 4)).split(",")
        ticks.append(text(x, height - margin + 18, round(last * i / 4), anchor="middle"))
        ticks.append(text(margin - 8, y, f"{top * i / 4:.1f}", anchor="end"))
        ticks.append(f'<path d="M{margin} {y}H{width - margin}" stroke="#ddd"/>')
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>', *ticks,
        f'<path d="M{margin} {margin}V{height - margin}H{width - margin}" stroke="#333" fill="none"/>',
        line(training, "#1f77b4"), line(validation, "#d62728"),
        text(width - margin, margin, "training loss", "#1f77b4", "end"),
        text(width - margin, margin + 18, "validation loss", "#d62728", "end"),
        text(width / 2, height - 10, "step", anchor="middle"), "</svg>", ""])


def main():
    run, candidates, scores, picture = map(pathlib.Path, sys.argv[1:5])
    training, validation = read_curve(run / "metrics.csv")
    share, count = accuracy(read_lines(candidates), read_lines(scores))
    picture.write_text(svg(training, validation), encoding="utf-8")
    print(f"\ntraining loss\n{ascii_curve(training)}\n")
    print(f"training loss    {training[0][1]:.4f} at step {training[0][0]}, {training[-1][1]:.4f} at step {training[-1][0]}")
    print(f"validation loss  {validation[0][1]:.4f} before, {validation[-1][1]:.4f} after")
    print(f"accuracy         {share:.1%} of {count} held-out records (chance: 33.3%)")
    print(f"loss curve       {picture}")


if __name__ == "__main__":
    main()
