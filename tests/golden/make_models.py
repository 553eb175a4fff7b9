#!/usr/bin/env python3
"""Makes the small golden models: random float32 weights, and what transformers computes with them (CPU, eager attention).

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install torch transformers safetensors numpy
    /tmp/venv/bin/python tests/golden/make_models.py [case ...]

writes tests/golden/models/<case>/, all of them or those named. In golden.safetensors: input_ids [B, S] i64; loss_mask [B, S] u8, 1 where a token
counts as a target; logits [B, S, V]; loss [1], the mean cross-entropy of the counted targets given the tokens before
them; grad.<parameter>; steps.input_ids [N, B, S] and steps.loss [N], N steps of AdamW (lr 1e-3, betas 0.9 and 0.95,
eps 1e-8, weight decay 0.1 on parameters of two or more dimensions), each loss before its update.

Where rows hold several documents (packed): positions [B, S], which begin again with each document, and document_starts
[B, S], 1 there; a token sees its own document alone, the first token of a document is never a target; logits [64, V] are
those at sampled [64, 2] (row, position).

What each covers: llama, transformers 4's spelling (rope_theta, rope_scaling, torch_dtype, no head_dim), two shards, one
kv head, 131 tokens; qwen3, an untied head, a decoder that is not square, 131 tokens; mistral, a sliding window of 7;
nemotron, transformers 4's spelling, a half that rotates, 97 tokens; qwen2, biases of q, k and v, tied, the second layer
with a window of 5 by max_window_layers; llama_biases and nemotron_biases, biases of every linear layer; llama_yarn, yarn
under the key `type`; llama_linear, linear scaling; packed, documents of 1 to 50 tokens.
"""
import json
import pathlib
import shutil
import sys

import torch
import transformers
from safetensors.torch import save_file

ROWS, LENGTH, STEPS = 4, 23, 6
HERE = pathlib.Path(__file__).resolve().parent / "models"

COMMON = dict(vocab_size=131, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
              max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=None, tie_word_embeddings=False,
              attention_bias=False, attention_dropout=0.0, initializer_range=0.02, use_cache=True)
LLAMA3_SCALING = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                      original_max_position_embeddings=32)

YARN = dict(factor=4.0, original_max_position_embeddings=16)

# case: class of the configuration, what it is given, the spelling of transformers 4 that the folder is written in (or
# None), how many files hold the weights
CASES = {
    "llama": ("LlamaConfig", dict(COMMON, num_key_value_heads=1, hidden_act="silu", rms_norm_eps=1e-5, mlp_bias=False,
                                  rope_parameters=dict(LLAMA3_SCALING, rope_theta=10000.0)),
              dict(rope_theta=10000.0, rope_scaling=LLAMA3_SCALING), 2),
    "qwen3": ("Qwen3Config", dict(COMMON, num_key_value_heads=2, head_dim=16, hidden_act="silu", rms_norm_eps=1e-6,
                                  rope_parameters=dict(rope_type="default", rope_theta=1000000.0)), None, 1),
    "mistral": ("MistralConfig", dict({k: v for k, v in COMMON.items() if k != "attention_bias"}, vocab_size=130,
                                      num_key_value_heads=2, head_dim=8, hidden_act="silu", rms_norm_eps=1e-5,
                                      sliding_window=7,
                                      rope_parameters=dict(rope_type="default", rope_theta=10000.0)), None, 1),
    "nemotron": ("NemotronConfig", dict(COMMON, vocab_size=97, num_key_value_heads=2, head_dim=16, hidden_act="relu2",
                                        norm_eps=1e-5, mlp_bias=False,
                                        rope_parameters=dict(rope_type="default", rope_theta=10000.0,
                                                             partial_rotary_factor=0.5)),
                 dict(rope_theta=10000.0, partial_rotary_factor=0.5), 1),
    "qwen2": ("Qwen2Config", dict({k: v for k, v in COMMON.items() if k != "attention_bias"}, num_key_value_heads=2,
                                  hidden_act="silu", rms_norm_eps=1e-6, tie_word_embeddings=True, use_sliding_window=True,
                                  sliding_window=5, max_window_layers=1,
                                  rope_parameters=dict(rope_type="default", rope_theta=1000000.0)),
              dict(rope_theta=1000000.0), 1),
    "llama_biases": ("LlamaConfig", dict(COMMON, num_key_value_heads=2, hidden_act="silu", rms_norm_eps=1e-5,
                                         attention_bias=True, mlp_bias=True,
                                         rope_parameters=dict(rope_type="default", rope_theta=10000.0)), None, 1),
    "nemotron_biases": ("NemotronConfig", dict(COMMON, vocab_size=97, num_key_value_heads=2, hidden_act="relu2",
                                               norm_eps=1e-5, attention_bias=True, mlp_bias=True,
                                               rope_parameters=dict(rope_type="default", rope_theta=10000.0,
                                                                    partial_rotary_factor=0.5)), None, 1),
    "llama_yarn": ("LlamaConfig", dict(COMMON, num_key_value_heads=2, head_dim=16, hidden_act="silu", rms_norm_eps=1e-5,
                                       mlp_bias=False, rope_parameters=dict(YARN, rope_type="yarn", rope_theta=10000.0)),
                   dict(rope_theta=10000.0, rope_scaling=dict(YARN, type="yarn")), 1),
    "llama_linear": ("LlamaConfig", dict(COMMON, num_key_value_heads=4, hidden_act="silu", rms_norm_eps=1e-5,
                                         mlp_bias=False,
                                         rope_parameters=dict(rope_type="linear", rope_theta=10000.0, factor=2.5)), None, 1),
    "packed": ("LlamaConfig", dict(COMMON, num_key_value_heads=2, hidden_act="silu", rms_norm_eps=1e-5, mlp_bias=False,
                                   max_position_embeddings=128,
                                   rope_parameters=dict(rope_type="default", rope_theta=10000.0)), None, 1),
}
# Lengths of the documents in each row, where they are not whole rows.
DOCUMENTS = {"packed": [[1, 7, 30, 2, 1, 50, 5], [40, 3, 53]]}
# What transformers 5 writes and 4 does not have; head_dim follows there from hidden_size where it is not given.
NEW_KEYS = ("rope_parameters", "dtype", "layer_types")


def loss_of(model, ids, mask, layout):
    logits = model(input_ids=ids, **layout).logits
    losses = torch.nn.functional.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1),
                                               reduction="none")
    counted = mask[:, 1:].reshape(-1).to(losses.dtype)
    return logits, (losses * counted).sum() / counted.sum()


def write_config(folder, config, old_spelling):
    values = config.to_dict()
    if old_spelling is not None:
        values = {key: value for key, value in values.items() if key not in NEW_KEYS}
        values.update(old_spelling, torch_dtype="float32", transformers_version="4.46.0")
        if values.get("head_dim") == values["hidden_size"] // values["num_attention_heads"]:
            del values["head_dim"]
    (folder / "config.json").write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")
    (folder / "generation_config.json").write_text(json.dumps({"bos_token_id": 1, "eos_token_id": 2}, indent=2) + "\n")


def write_weights(folder, weights, files):
    if files == 1:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = sorted(weights)
    of_file = {name: f"model-{1 + i * files // len(names):05d}-of-{files:05d}.safetensors" for i, name in enumerate(names)}
    for file in sorted(set(of_file.values())):
        save_file({name: weights[name] for name in names if of_file[name] == file}, folder / file, metadata={"format": "pt"})
    total = sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
    index = {"metadata": {"total_size": total}, "weight_map": of_file}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def packed(rows):
    """positions, document_starts, and what the model is given so that a token sees its own document alone."""
    positions = torch.stack([torch.cat([torch.arange(n) for n in lengths]) for lengths in rows])
    document = torch.cumsum(positions == 0, dim=1)
    index = torch.arange(positions.shape[1])
    visible = (document[:, :, None] == document[:, None, :]) & (index[:, None] >= index[None, :])
    blocked = torch.where(visible, 0.0, torch.finfo(torch.float32).min)[:, None]
    return positions, (positions == 0).to(torch.int64), dict(position_ids=positions, attention_mask=blocked)


def check_documents(model, ids, logits, rows):
    """A document in a row of several has the logits that it has alone."""
    with torch.no_grad():
        for row, lengths in enumerate(rows):
            begin = 0
            for length in lengths:
                alone = model(input_ids=ids[row : row + 1, begin : begin + length]).logits[0]
                assert torch.allclose(alone, logits[row, begin : begin + length], atol=1e-5, rtol=0), (row, begin)
                begin += length


def make(case, config_class, values, old_spelling, files):
    folder = HERE / case
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    torch.manual_seed(20 + list(CASES).index(case))
    config = getattr(transformers, config_class)(**values)
    config._attn_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():  # far from the initial values, so that gains, biases and attention matter
        for name, parameter in model.named_parameters():
            scale = 0.2 if parameter.dim() > 1 else 0.3
            base = parameter if parameter.dim() == 1 else 0.0
            parameter.copy_(base + scale * torch.randn_like(parameter))
    write_config(folder, model.config, old_spelling)
    (folder / "config.json").write_text(
        (folder / "config.json").read_text().replace('"architectures": null', f'"architectures": ["{type(model).__name__}"]'))
    write_weights(folder, {name: p.detach().clone().contiguous() for name, p in model.named_parameters()}, files)

    vocabulary = config.vocab_size
    documents = DOCUMENTS.get(case)
    rows, length = (len(documents), sum(documents[0])) if documents else (ROWS, LENGTH)
    layout = {}
    ids = torch.randint(0, vocabulary, (rows, length))
    mask = (torch.rand(rows, length) < 0.7).to(torch.uint8)
    golden = {"input_ids": ids, "loss_mask": mask}
    if documents:
        golden["positions"], golden["document_starts"], layout = packed(documents)
        mask[golden["positions"] == 0] = 0
    else:
        mask[:, 0] = 0
        mask[1] = 0  # a row that counts nothing
        mask[2] = 0
        mask[2, 5] = 1  # and one with a single target
    logits, loss = loss_of(model, ids, mask, layout)
    loss.backward()
    if documents:
        places = torch.randperm(rows * length)[:64].sort().values
        golden["sampled"] = torch.stack([places // length, places % length], dim=1)
        golden["logits"] = logits.detach().reshape(rows * length, -1)[places].contiguous()
        check_documents(model, ids, logits.detach(), documents)
    else:
        golden["logits"] = logits.detach().contiguous()
    golden["loss"] = loss.detach().reshape(1)
    for name, parameter in model.named_parameters():
        golden["grad." + name] = parameter.grad.clone().contiguous()

    decayed = [p for p in model.parameters() if p.dim() >= 2]
    kept = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW([dict(params=decayed, weight_decay=0.1), dict(params=kept, weight_decay=0.0)], lr=1e-3,
                                  betas=(0.9, 0.95), eps=1e-8)
    steps = torch.randint(0, vocabulary, (STEPS, rows, length))
    losses = []
    for batch in steps:
        optimizer.zero_grad()
        _, loss = loss_of(model, batch, mask, layout)
        loss.backward()
        losses.append(loss.detach())
        optimizer.step()
    golden["steps.input_ids"] = steps
    golden["steps.loss"] = torch.stack(losses)
    save_file(golden, folder / "golden.safetensors")
    print(case, [round(float(x), 4) for x in losses])


if __name__ == "__main__":
    torch.set_num_threads(1)
    for case in sys.argv[1:] or CASES:
        make(case, *CASES[case])
