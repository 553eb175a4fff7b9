#!/usr/bin/env python3
"""check_export.py HF_FOLDER SCORES.jsonl: opens an exported folder in transformers and compares the log-probabilities of
the scored tokens with those that `verne score` wrote for the same folder (float32). Exit code 1 where they differ."""
import json
import sys
import warnings

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

folder, scores = sys.argv[1], sys.argv[2]
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    tokenizer = AutoTokenizer.from_pretrained(folder)
for name in ("missing_keys", "unexpected_keys", "mismatched_keys"):
    assert not info[name], (name, info[name])
model = model.eval().cuda()
torch.backends.cuda.matmul.allow_tf32 = False
worst = 0.0
lines = [json.loads(line) for line in open(scores)]
for line in lines:
    ids = torch.tensor([line["tokens"]], device="cuda")
    with torch.no_grad():
        expected = torch.log_softmax(model(ids).logits[0].double(), -1)
    expected = expected[:-1].gather(1, ids[0, 1:, None])[:, 0].cpu()
    found = torch.tensor(line["logprobs"][1:], dtype=torch.float64)
    worst = max(worst, (expected - found).abs().max().item())
print(f"{folder}: {len(lines)} documents, largest difference of a log-probability {worst:.2e}; warnings {[str(w.message) for w in caught]}")
print("chat template:", (tokenizer.chat_template or "")[:60].replace("\n", "\\n"))
sys.exit(worst > 2e-4)
