#!/usr/bin/env python3
"""Writes tests/golden/rope_tables.json: the rotary tables that transformers makes of a config.json (float32, CPU).

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install torch transformers
    /tmp/venv/bin/python tests/golden/make_rope_tables.py

A list of cases: name; config, as a config.json of either spelling has it; inv_freq [dim / 2]; positions [P]; cos and sin
[P, dim / 2], the attention factor in them.
"""
import json
import pathlib

import torch
import transformers
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.nemotron.modeling_nemotron import NemotronRotaryEmbedding
from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding

POSITIONS = [0, 1, 2, 7, 31, 64]
SHAPE = dict(vocab_size=64, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
             num_key_value_heads=2, head_dim=32, max_position_embeddings=2048)
CLASSES = {"llama": (transformers.LlamaConfig, LlamaRotaryEmbedding, "LlamaForCausalLM"),
           "qwen3": (transformers.Qwen3Config, Qwen3RotaryEmbedding, "Qwen3ForCausalLM"),
           "nemotron": (transformers.NemotronConfig, NemotronRotaryEmbedding, "NemotronForCausalLM")}


def yarn(**more):
    return dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=512, **more)


# name: family, what config.json holds besides the shape
CASES = {
    "default": ("llama", dict(rope_parameters=dict(rope_type="default", rope_theta=5e5))),
    "linear": ("llama", dict(rope_theta=1e4, rope_scaling=dict(type="linear", factor=4.0))),
    "linear_5": ("llama", dict(rope_parameters=dict(rope_type="linear", rope_theta=1e6, factor=2.5))),
    "llama3": ("llama", dict(rope_theta=5e5, rope_scaling=dict(
        rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
        original_max_position_embeddings=256))),
    "yarn": ("qwen3", dict(rope_theta=1e4, rope_scaling=yarn())),
    "yarn_type": ("qwen3", dict(rope_theta=1e6, rope_scaling=dict(type="yarn", factor=4.0,
                                                                    original_max_position_embeddings=512))),
    "yarn_5": ("qwen3", dict(rope_parameters=yarn(rope_theta=1e6))),
    "yarn_betas": ("llama", dict(rope_parameters=yarn(rope_theta=1e4, beta_fast=12.0, beta_slow=3.0))),
    "yarn_not_truncated": ("llama", dict(rope_parameters=yarn(rope_theta=1e4, truncate=False))),
    "yarn_attention_factor": ("llama", dict(rope_parameters=yarn(rope_theta=1e4, attention_factor=0.75))),
    "yarn_mscale": ("llama", dict(rope_parameters=yarn(rope_theta=1e4, mscale=0.707, mscale_all_dim=1.5))),
    "yarn_mscale_alone": ("llama", dict(rope_parameters=yarn(rope_theta=1e4, mscale=2.0))),
    "yarn_one_component": ("llama", dict(rope_parameters=yarn(rope_theta=1e4, beta_fast=5e4, beta_slow=4e4))),
    "yarn_small_original": ("llama", dict(rope_theta=1e4, rope_scaling=dict(
        rope_type="yarn", factor=512.0, original_max_position_embeddings=4))),
    "yarn_original_beside": ("llama", dict(rope_theta=1e4, original_max_position_embeddings=128, rope_scaling=dict(
        rope_type="yarn", factor=16.0))),
    "yarn_original_absent": ("llama", dict(rope_theta=1e4, rope_scaling=dict(rope_type="yarn", factor=2.0))),
    "yarn_factor_null": ("llama", dict(rope_theta=1e4, rope_scaling=dict(
        rope_type="yarn", factor=None, original_max_position_embeddings=256))),
    "yarn_partial": ("nemotron", dict(rope_parameters=yarn(rope_theta=1e4, partial_rotary_factor=0.5))),
    "both_spellings": ("llama", dict(rope_theta=1e4, rope_scaling=dict(rope_type="linear", factor=8.0),
                                     rope_parameters=dict(rope_type="default", rope_theta=5e5))),
}


def make(name, family, rope):
    config_class, rotary_class, architecture = CLASSES[family]
    written = dict(SHAPE, model_type=family, architectures=[architecture], **rope)
    rotary = rotary_class(config_class.from_dict(json.loads(json.dumps(written))))
    cos, sin = rotary(torch.zeros(1, dtype=torch.float32), torch.tensor([POSITIONS]))
    half = rotary.inv_freq.numel()
    return dict(name=name, config=written, inv_freq=rotary.inv_freq.tolist(), positions=POSITIONS,
                cos=cos[0, :, :half].tolist(), sin=sin[0, :, :half].tolist())


if __name__ == "__main__":
    cases = [make(name, *case) for name, case in CASES.items()]
    target = pathlib.Path(__file__).resolve().parent / "rope_tables.json"
    target.write_text("[" + ",\n".join(json.dumps(case) for case in cases) + "]\n")
