#!/usr/bin/env python3
"""Writes COUNT records {"tokens": [...]} of LENGTH random ids below VOCABULARY to a JSONL file, from a fixed seed."""
import json
import random
import sys

path, count, length, vocabulary = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
source = random.Random(1)
with open(path, "w") as out:
    for _ in range(count):
        out.write(json.dumps({"tokens": [source.randrange(vocabulary) for _ in range(length)]}) + "\n")
