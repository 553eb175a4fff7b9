#!/usr/bin/env python3
"""Makes the quickstart's data: market headlines and prices in, reasoning and an action out.

    make_market_data.py OUTPUT_FOLDER [--train N] [--held-out N] [--seed S]

writes train.jsonl ({"input", "output"}), candidates.jsonl (each held-out record three times, once with each action;
"record", "action" and "correct" are metadata) and held_out.jsonl. The right action follows from the headline: good news
BUY, bad news SELL, news that changes nothing HOLD. Prices move at random. No held-out input occurs in train.jsonl.
"""
import argparse
import json
import pathlib
import random

FIRST = "Alder Borea Cobalt Delphi Ember Fjord Granite Harbor Indigo Juniper Keystone Lumen Meridian Nimbus Orchid".split()
SECOND = "Energy Foods Motors Bank Pharma Systems Mining Retail Airlines Steel Media Logistics".split()
WHEN = ["this morning", "after the close", "on Monday", "late on Friday", "before the open", "at noon"]

HEADLINES = {
    "BUY": [
        "{c} lifts its full-year profit forecast",
        "{c} wins a record order from the government",
        "{c} beats earnings estimates and raises its dividend",
        "Regulators clear the new flagship product of {c}",
        "{c} is not in breach of its loans, and its debt is upgraded",
        "{c} settles its largest lawsuit for far less than feared",
        "Demand outruns supply at {c}; margins widen",
        "A rival offers to buy {c} well above the market price",
    ],
    "SELL": [
        "{c} cuts its full-year profit forecast",
        "{c} loses a record order from the government",
        "{c} misses earnings estimates and suspends its dividend",
        "Regulators reject the new flagship product of {c}",
        "{c} is in breach of its loans, and its debt is downgraded",
        "{c} faces its largest lawsuit, with damages far above what was feared",
        "Supply outruns demand at {c}; margins shrink",
        "A rival drops its offer to buy {c}",
    ],
    "HOLD": [
        "{c} confirms its full-year profit forecast",
        "{c} renews an order from the government on the same terms",
        "{c} meets earnings estimates and keeps its dividend",
        "Regulators will look at the new flagship product of {c} next year",
        "{c} says nothing about its loans, and its debt rating stands",
        "{c} moves its annual meeting to another city",
        "Supply and demand are in balance at {c}; margins hold",
        "A rival denies that it ever meant to buy {c}",
    ],
}
REASONING = {
    "BUY": ["The news is good for {c}, so it should be worth more.", "This is better than expected; {c} should rise."],
    "SELL": ["The news is bad for {c}, so it should be worth less.", "This is worse than expected; {c} should fall."],
    "HOLD": ["The news changes nothing for {c}, so it should stay.", "This is what was expected; {c} should not move."],
}
ACTIONS = ("BUY", "HOLD", "SELL")


def answer(company, action, wording):
    reasoning = REASONING[action][wording].format(c=company)
    return f"<reasoning>{reasoning}</reasoning><action>{action}</action>"


def record(rng):
    action = rng.choice(ACTIONS)
    company = f"{rng.choice(FIRST)} {rng.choice(SECOND)}"
    price = rng.uniform(10, 200)
    move = rng.gauss(0, 1.5)
    change = f"{'up' if move > 0 else 'down'} {abs(move):.1f}%"
    quote = rng.choice([f"Price {price:.2f}, {change} on the day.", f"Last trade at {price:.2f} ({change})."])
    headline = rng.choice(HEADLINES[action]).format(c=company)
    text = rng.choice([f"{headline}, {rng.choice(WHEN)}. {quote}", f"{quote} Headline: {headline}."])
    return {"input": text, "output": answer(company, action, rng.randrange(2))}, company, action


def write(path, records):
    with open(path, "w", encoding="utf-8", newline="\n") as out:
        for item in records:
            out.write(json.dumps(item) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("--train", type=int, default=4000)
    parser.add_argument("--held-out", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    options.output.mkdir(parents=True, exist_ok=True)

    train = [record(rng)[0] for _ in range(options.train)]
    seen = {item["input"] for item in train}
    held_out, candidates = [], []
    while len(held_out) < options.held_out:
        item, company, action = record(rng)
        if item["input"] in seen:
            continue
        seen.add(item["input"])
        wording = rng.randrange(2)
        for candidate in ACTIONS:
            candidates.append({"input": item["input"], "output": answer(company, candidate, wording),
                               "record": len(held_out), "action": candidate, "correct": action})
        held_out.append(item)
    write(options.output / "train.jsonl", train)
    write(options.output / "held_out.jsonl", held_out)
    write(options.output / "candidates.jsonl", candidates)


if __name__ == "__main__":
    main()
