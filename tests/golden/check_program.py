#!/usr/bin/env python3
"""check_program.py VERNE CASE_FOLDER... [--device cpu|cuda] [--mpirun "mpirun --bind-to none"]

Runs the program itself on golden models under every layout of up to four ranks and compares with Hugging Face's numbers:
`score` against the logits, `train` over steps.input_ids against steps.loss. Standard library alone. Exit code 1 where a bar
is missed. Bars: log-probabilities 1e-5 of the largest logit, loss 1e-5 relative at every step.
"""
import argparse
import array
import csv
import json
import math
import os
import shlex
import struct
import subprocess
import sys
import tempfile

parser = argparse.ArgumentParser()
parser.add_argument("verne")
parser.add_argument("cases", nargs="+")
parser.add_argument("--device", default="cpu")
parser.add_argument("--mpirun", default="mpirun --bind-to none --oversubscribe")
parser.add_argument("--ranks", type=int, default=4)
arguments = parser.parse_args()


def read_safetensors(path):
    data = open(path, "rb").read()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        values = array.array({"F32": "f", "I64": "q", "U8": "B", "BOOL": "B"}[entry["dtype"]])
        values.frombytes(data[8 + length + begin : 8 + length + end])
        tensors[name] = (values, entry["shape"])
    return tensors


def log_softmax_at(logits, target):
    top = max(logits)
    return logits[target] - top - math.log(math.fsum(math.exp(x - top) for x in logits))


def layouts():
    for ranks in (1, 2, 4):
        if ranks > arguments.ranks:
            break
        for tensor in (1, 2, 4):
            if tensor <= ranks and ranks // tensor <= 2:  # a case has two rows
                yield ranks, tensor


def verne(ranks, *words):
    command = shlex.split(arguments.mpirun) + ["-n", str(ranks), arguments.verne, *words]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\nexit code {done.returncode}\n{done.stdout}{done.stderr}")


failed = False
for case in arguments.cases:
    golden = read_safetensors(os.path.join(case, "golden.safetensors"))
    ids, (rows, length) = golden["input_ids"]
    mask = golden["loss_mask"][0]
    steps, (count, _, _) = golden["steps.input_ids"]
    logits, (_, _, vocabulary) = golden["logits"]
    largest = max(abs(x) for x in logits)

    def record(source, row, mask_row):
        tokens = list(source[row * length : (row + 1) * length])
        return json.dumps({"tokens": tokens, "loss_mask": list(mask[mask_row * length : (mask_row + 1) * length])}) + "\n"

    with tempfile.TemporaryDirectory() as folder:
        open(folder + "/batch.jsonl", "w").writelines(record(ids, r, r) for r in range(rows))
        open(folder + "/steps.jsonl", "w").writelines(record(steps, r, r % rows) for r in range(count * rows))
        for ranks, tensor in layouts():
            common = [f"--model.path={case}", "--model.dtype=fp32", f"--run.device={arguments.device}", f"--parallel.tensor={tensor}"]
            verne(ranks, "score", *common, f"--score.input={folder}/batch.jsonl", f"--score.output={folder}/scores.jsonl")
            worst_score = 0.0
            for row, line in enumerate(map(json.loads, open(folder + "/scores.jsonl"))):
                for t in range(1, length):
                    at = (row * length + t - 1) * vocabulary
                    expected = log_softmax_at(logits[at : at + vocabulary], ids[row * length + t])
                    worst_score = max(worst_score, abs(expected - line["logprobs"][t]) / largest)
            if any(not any(mask[r * length + 1 : (r + 1) * length]) for r in range(rows)):
                failed |= worst_score >= 1e-5
                print(f"{os.path.basename(os.path.normpath(case)):10} TP{tensor} x DP{ranks // tensor}: log-probabilities {worst_score:.1e} of the "
                      "largest logit; not trained: a row without a counted target is dropped at load, the case keeps it", flush=True)
                continue
            run = f"{folder}/run_{ranks}_{tensor}"
            verne(ranks, "train", *common, f"--data.train={folder}/steps.jsonl", f"--run.dir={run}", "--prepare.split=1,0,0",
                  f"--data.seq_length={length}", "--data.packing=false", "--data.shuffle=false", f"--train.global_batch={rows}",
                  f"--train.max_steps={count}", "--optimizer.lr=1e-3", "--optimizer.schedule=constant", "--optimizer.warmup_steps=0",
                  "--optimizer.beta1=0.9", "--optimizer.beta2=0.95", "--optimizer.eps=1e-8", "--optimizer.weight_decay=0.1",
                  "--optimizer.clip_grad=0")
            losses = [float(r["loss"]) for r in csv.DictReader(open(run + "/metrics.csv")) if r["loss"]]
            assert len(losses) == count, (len(losses), count)
            worst_loss = max(abs(a - b) / b for a, b in zip(losses, golden["steps.loss"][0]))
            good = worst_score < 1e-5 and worst_loss < 1e-5
            failed |= not good
            print(f"{os.path.basename(os.path.normpath(case)):10} TP{tensor} x DP{ranks // tensor}: log-probabilities {worst_score:.1e} of the "
                  f"largest logit, losses of {count} steps {worst_loss:.1e}{'' if good else '  MISSED'}", flush=True)
sys.exit(failed)
