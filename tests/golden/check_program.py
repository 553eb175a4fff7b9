#!/usr/bin/env python3
"""check_program.py VERNE CASE_FOLDER... [--device cpu|cuda] [--ranks 4] [--mpirun "mpirun --bind-to none"]

Runs the program itself on golden models under every layout of up to --ranks ranks that divides (tensor x context x pipeline
x chunks x data) and compares with Hugging Face's numbers: `score` against the logits, `train` over steps.input_ids against
steps.loss. Packed documents are given one by one. Standard library alone. Exit code 1 where a bar is missed.
Bars: log-probabilities 1e-5 of the largest logit, loss 1e-5 relative at every step.
"""
import argparse
import array
import csv
import itertools
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
parser.add_argument("--only", help="layouts, for example ,dp2,pp2x2,tp2cp2dp2 (the first of these is one rank)")
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


class Layout:
    def __init__(self, tensor, context, pipeline, chunks, data):
        self.tensor, self.context, self.pipeline, self.chunks, self.data = tensor, context, pipeline, chunks, data
        self.ranks = tensor * context * pipeline * data

    def name(self):
        chunks = f"x{self.chunks}" if self.chunks > 1 else ""
        sizes = (("tp", self.tensor, ""), ("cp", self.context, ""), ("pp", self.pipeline, chunks), ("dp", self.data, ""))
        return "".join(f"{key}{size}{more}" for key, size, more in sizes if size > 1)

    def settings(self):
        return [f"--parallel.tensor={self.tensor}", f"--parallel.context={self.context}", f"--parallel.pipeline={self.pipeline}",
                f"--parallel.virtual_pipeline={self.chunks}"]


def layouts(config, documents):
    """Those that the model and the number of documents in a batch allow."""
    sizes = [n for n in (1, 2, 4, 8) if n <= arguments.ranks]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    for tensor, context, pipeline, data in itertools.product(sizes, sizes, sizes, range(1, arguments.ranks + 1)):
        for chunks in (1, 2) if pipeline > 1 else (1,):
            layout = Layout(tensor, context, pipeline, chunks, data)
            fits = (layout.ranks <= arguments.ranks and documents % data == 0 and heads % tensor == 0
                    and (kv_heads % tensor == 0 or tensor % kv_heads == 0) and config["intermediate_size"] % tensor == 0
                    and pipeline * chunks <= config["num_hidden_layers"] + 2)
            if fits and (not arguments.only or layout.name() in arguments.only.split(",")):
                yield layout


def verne(ranks, *words):
    command = shlex.split(arguments.mpirun) + ["-n", str(ranks), arguments.verne, *words]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\nexit code {done.returncode}\n{done.stdout}{done.stderr}")


class Case:
    def __init__(self, folder):
        self.folder = folder
        self.name = os.path.basename(os.path.normpath(folder))
        self.config = json.load(open(os.path.join(folder, "config.json")))
        golden = read_safetensors(os.path.join(folder, "golden.safetensors"))
        self.ids, (rows, self.length) = golden["input_ids"]
        self.mask = golden["loss_mask"][0]
        self.steps, (self.count, _, _) = golden["steps.input_ids"]
        self.losses = golden["steps.loss"][0]
        self.logits, shape = golden["logits"]
        self.vocabulary = shape[-1]
        # Which positions the logits are of, and in which documents the rows are cut.
        total = rows * self.length
        places = [r * self.length + t for r, t in zip(*[iter(golden["sampled"][0])] * 2)] if "sampled" in golden else range(total)
        self.logits_at = {place: index for index, place in enumerate(places)}
        starts = golden["document_starts"][0] if "document_starts" in golden else [t % self.length == 0 for t in range(total)]
        begins = [t for t in range(total) if starts[t]] + [total]
        self.documents = list(zip(begins, begins[1:]))
        self.largest = max(abs(x) for x in self.logits)
        self.trained = [(b, e) for b, e in self.documents if any(self.mask[b + 1 : e])]

    def write(self, path, tokens, documents, batches=1):
        total = len(self.ids)
        with open(path, "w") as out:
            for batch, (begin, end) in itertools.product(range(batches), documents):
                mask = [0] + list(self.mask[begin + 1 : end])
                out.write(json.dumps({"tokens": list(tokens[batch * total + begin : batch * total + end]), "loss_mask": mask}) + "\n")

    def score_error(self, path):
        worst = 0.0
        for (begin, end), line in zip(self.documents, map(json.loads, open(path))):
            for t in range(begin + 1, end):
                if t - 1 in self.logits_at:
                    at = self.logits_at[t - 1] * self.vocabulary
                    expected = log_softmax_at(self.logits[at : at + self.vocabulary], self.ids[t])
                    worst = max(worst, abs(expected - line["logprobs"][t - begin]) / self.largest)
        return worst


def check(case, layout, folder):
    common = [f"--model.path={case.folder}", "--model.dtype=fp32", f"--run.device={arguments.device}", *layout.settings()]
    verne(layout.ranks, "score", *common, f"--score.input={folder}/batch.jsonl", f"--score.output={folder}/scores.jsonl")
    score = case.score_error(folder + "/scores.jsonl")
    run = f"{folder}/run_{layout.name()}"
    verne(layout.ranks, "train", *common, f"--data.train={folder}/steps.jsonl", f"--run.dir={run}", "--prepare.split=1,0,0",
          f"--data.seq_length={case.length}", "--data.packing=false", "--data.shuffle=false",
          f"--train.global_batch={len(case.trained)}", f"--train.max_steps={case.count}", "--optimizer.lr=1e-3",
          "--optimizer.schedule=constant", "--optimizer.warmup_steps=0", "--optimizer.beta1=0.9", "--optimizer.beta2=0.95",
          "--optimizer.eps=1e-8", "--optimizer.weight_decay=0.1", "--optimizer.clip_grad=0")
    losses = [float(r["loss"]) for r in csv.DictReader(open(run + "/metrics.csv")) if r["loss"]]
    assert len(losses) == case.count, (len(losses), case.count)
    return score, max(abs(a - b) / b for a, b in zip(losses, case.losses))


failed = False
for case in map(Case, arguments.cases):
    worst = [0.0, 0.0]
    checked = []
    with tempfile.TemporaryDirectory() as folder:
        case.write(folder + "/batch.jsonl", case.ids, case.documents)
        case.write(folder + "/steps.jsonl", case.steps, case.trained, case.count)
        for layout in layouts(case.config, len(case.trained)):
            score, loss = check(case, layout, folder)
            good = score < 1e-5 and loss < 1e-5
            failed |= not good
            worst = [max(worst[0], score), max(worst[1], loss)]
            checked.append(layout.name() or "one rank")
            if not good:
                print(f"{case.name} {checked[-1]}: log-probabilities {score:.1e} of the largest logit, losses {loss:.1e}  MISSED",
                      flush=True)
    print(f"{case.name}: log-probabilities {worst[0]:.1e} of the largest logit, losses of {case.count} steps {worst[1]:.1e}, at worst of "
          f"{len(checked)} layouts: {', '.join(checked)}", flush=True)
sys.exit(failed)
