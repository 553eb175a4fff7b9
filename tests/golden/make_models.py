#!/usr/bin/env python3
"""Makes the small golden models: random float32 weights, and what transformers computes with them (CPU, eager attention).

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install torch transformers safetensors numpy
    /tmp/venv/bin/python tests/golden/make_models.py

writes tests/golden/models/<family>/. In golden.safetensors: input_ids [B, S] i64; loss_mask [B, S] u8, 1 where a token
counts as a target; logits [B, S, V]; loss [1], the mean cross-entropy of the counted targets given the tokens before
them; grad.<parameter>; steps.input_ids [N, B, S] and steps.loss [N], N steps of AdamW (lr 1e-3, betas 0.9 and 0.95,
eps 1e-8, weight decay 0.1 on parameters of two or more dimensions), each loss before its update.

What each covers: llama, transformers 4's spelling (rope_theta, rope_scaling, torch_dtype, no head_dim), two shards, one
kv head, 131 tokens; qwen3, an untied head, a decoder that is not square, 131 tokens; mistral, a sliding window of 7;
nemotron, transformers 4's spelling, a half that rotates, 97 tokens.
"""
import json
import pathlib
import shutil

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

# family: class of the configuration, what it is given, the spelling of transformers 4 that the folder is written in (or
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
}
# What transformers 5 writes and 4 does not have; head_dim follows there from hidden_size where it is not given.
NEW_KEYS = ("rope_parameters", "dtype")


def loss_of(model, ids, mask):
    logits = model(input_ids=ids).logits
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


def make(family, config_class, values, old_spelling, files):
    folder = HERE / family
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    torch.manual_seed(20 + list(CASES).index(family))
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
    ids = torch.randint(0, vocabulary, (ROWS, LENGTH))
    mask = (torch.rand(ROWS, LENGTH) < 0.7).to(torch.uint8)
    mask[:, 0] = 0
    mask[1] = 0  # a row that counts nothing
    mask[2] = 0
    mask[2, 5] = 1  # and one with a single target
    logits, loss = loss_of(model, ids, mask)
    loss.backward()
    golden = {"input_ids": ids, "loss_mask": mask, "logits": logits.detach().contiguous(), "loss": loss.detach().reshape(1)}
    for name, parameter in model.named_parameters():
        golden["grad." + name] = parameter.grad.clone().contiguous()

    decayed = [p for p in model.parameters() if p.dim() >= 2]
    kept = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW([dict(params=decayed, weight_decay=0.1), dict(params=kept, weight_decay=0.0)], lr=1e-3,
                                  betas=(0.9, 0.95), eps=1e-8)
    steps = torch.randint(0, vocabulary, (STEPS, ROWS, LENGTH))
    losses = []
    for batch in steps:
        optimizer.zero_grad()
        _, loss = loss_of(model, batch, mask)
        loss.backward()
        losses.append(loss.detach())
        optimizer.step()
    golden["steps.input_ids"] = steps
    golden["steps.loss"] = torch.stack(losses)
    save_file(golden, folder / "golden.safetensors")
    print(family, [round(float(x), 4) for x in losses])


if __name__ == "__main__":
    torch.set_num_threads(1)
    for family, (config_class, values, old_spelling, files) in CASES.items():
        make(family, config_class, values, old_spelling, files)
