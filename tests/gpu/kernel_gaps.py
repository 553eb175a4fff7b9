#!/usr/bin/env python3
"""Times when no kernel ran, from kernel_trace's lines.

kernel_gaps.py TRACE [--step-ends NAME] [--steps N] [--shortest-us 5] [--kernels 20]
A step ends with the last of a run of kernels whose name holds NAME; the last N whole steps are looked at.
Prints the share of the time in gaps, every pair of neighbours that a gap lies between, the worst first, and the kernels
that took longest.
"""
import argparse
import collections
import re


def short(name):
    """A kernel's name without what the compiler adds: the last of the nested names of a mangled one."""
    if name.startswith("_ZN"):
        at, last = 3, name
        while (digits := re.match(r"[KL]*(\d+)", name[at:])):
            at += digits.end()
            last = name[at:at + int(digits.group(1))]
            at += len(last)
        return last
    return name.split("(")[0].split("<")[0].removeprefix("void ")[:70]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("trace")
    parser.add_argument("--step-ends", default="adamw")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--shortest-us", type=float, default=5)
    parser.add_argument("--kernels", type=int, default=20)
    arguments = parser.parse_args()
    rows = []
    for line in open(arguments.trace):
        start, end, _stream, name = line.rstrip("\n").split(",", 3)
        rows.append((int(start), int(end), name))
    rows.sort()
    ends = [end for k, (_, end, name) in enumerate(rows) if arguments.step_ends in name.lower()
            and not any(arguments.step_ends in later[2].lower() for later in rows[k + 1:k + 40])]
    if len(ends) < arguments.steps + 1:
        raise SystemExit(f"{len(ends)} steps in {arguments.trace}; {arguments.steps + 1} are needed")
    begin, stop = ends[-arguments.steps - 1], ends[-1]
    gaps, kernels, reached, before = collections.defaultdict(list), 0, begin, "the step before"
    times = collections.defaultdict(list)
    for start, end, name in rows:
        if start < begin or start >= stop:
            continue
        kernels += 1
        times[short(name)].append((end - start) / 1e3)
        if start - reached > arguments.shortest_us * 1e3:
            gaps[(short(before), short(name))].append((start - reached) / 1e3)
        if end > reached:
            reached, before = end, name
    span = (stop - begin) / 1e3
    total = sum(sum(values) for values in gaps.values())
    count = sum(len(values) for values in gaps.values())
    print(f"{arguments.steps} steps of {span / arguments.steps / 1e3:.2f} ms, {kernels / arguments.steps:.0f} kernels and "
          f"copies each: {count / arguments.steps:.1f} gaps over {arguments.shortest_us:g} us a step, "
          f"{100 * total / span:.2f} % of the time")
    for (first, second), values in sorted(gaps.items(), key=lambda item: -sum(item[1])):
        print(f"  {sum(values) / arguments.steps:9.1f} us a step ({100 * sum(values) / span:.2f} %) in "
              f"{len(values) / arguments.steps:.1f} gaps, longest {max(values):.1f}: {first} -> {second}")
    for name, values in sorted(times.items(), key=lambda item: -sum(item[1]))[: arguments.kernels]:
        print(f"  {sum(values) / arguments.steps / 1e3:9.2f} ms a step ({100 * sum(values) / span:5.2f} %) in "
              f"{len(values) / arguments.steps:7.1f} of {name}")


if __name__ == "__main__":
    main()
