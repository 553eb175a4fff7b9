#!/usr/bin/env python3
"""Makes tests/golden/tokenizers/* and tests/golden/templates/cases.jsonl.

Needs: pip install tokenizers transformers jinja2. The tokenizers are trained here on a few sentences; what they must do
(golden.jsonl) is what Hugging Face tokenizers makes of awkward text. The template cases are rendered here by hand, from
plain strings, encoded by Hugging Face tokenizers, and compared with what transformers makes of the exported Jinja
(templates/*.jinja, which the tests compare with what the program exports). Run it again after changing one of those.
"""
import json
import random
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

HERE = Path(__file__).parent
QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = QWEN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
DEEPSEEK = [
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
]
DS = {"bos": "<｜begin▁of▁sentence｜>", "user": "<｜User｜>", "assistant": "<｜Assistant｜>", "eos": "<｜end▁of▁sentence｜>"}

CORPUS = [
    "The shares of the company rose by 3.5% after the report, and the price closed at 120 dollars.",
    "Natalia sold 48 clips in April, and then she sold half as many clips in May. How many did she sell?",
    "It's not what they've said; we'll see that it's the market's turn. I'M here, YOU'RE there.",
    "user\nassistant\nsystem\nBelow is an instruction. Write a response that completes the request.",
    "def f(x):\n    return x ** 2  # a comment\n\n\nprint(f(12345))",
    "Der Kurs fällt, die Börse schließt. naïve café über garçon señor.",
    "中国人民银行 今天 天气 很好 日本語 テスト かな", "Привет мир, как дела? Γειά σου Κόσμε",
    "   leading and trailing   \n\n \t tabs\tand\r\nlines\r\n",
] * 4

WORDS = ["the", " price", "It's", "I'LL", "'ſ", " 'tis", "naïve", "e\u0301", "Å", "A\u030a", "中国", "日本語", "한국", "각",
         "привет", "🙂", "👍🏽", "\u200d", "\ufeff", "\u00a0", "\u3000", "\u2028", "\x85", "\t", "\n", "\r\n", "  ", " ", "   ",
         "12345", "2024-01-15", "٣٤", "Ⅷ", "½", "x**2", "://", "...", "!!\n", "$5.00%", "_", "ß", "İ", "ﬁ", "①", "ａｂ",
         "<think>", "</think>", "<|im_start|>", "<|im_end|>", "<s>", "</s>", "[INST]", "<tool>", "<|eot_id|>", "<mask>",
         "\u0301", "\u1100\u1161", "नमस्ते", "ไทย", "\x00", "\x7f", "<0x41>", "▁", "▁▁a", "Ġ", DS["user"], "a", "Z", "'s"]


def awkward_texts():
    rng = random.Random(7)
    texts = ["", " ", "\n", "Hello world", " Hello  world\n\n", "It's 2024-01-15; I'VE 12345.67%\r\n\tEnd.", "   leading",
             "trailing   ", "a" * 70, "ab " * 40, "  \n  \n x", "x \u00a0 y"]
    texts += CORPUS[:9]
    for _ in range(110):
        texts.append("".join(rng.choice(WORDS) + rng.choice(["", "", " "]) for _ in range(rng.randint(1, 14))))
    return texts


def save(name, tokenizer, config):
    folder = HERE / "tokenizers" / name
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n")
    with open(folder / "golden.jsonl", "w") as out:
        for text in awkward_texts():
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            row = {"text": text, "ids": ids, "with_special": tokenizer.encode(text).ids,
                   "decoded": tokenizer.decode(ids, skip_special_tokens=False)}
            out.write(json.dumps(row) + "\n")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def special(*tokens, special=True):
    return [AddedToken(t, normalized=False, special=special) for t in tokens]


def byte_level(split, size, added, normalizer=None, **model):
    tokenizer = Tokenizer(models.BPE(**model))
    if normalizer:
        tokenizer.normalizer = normalizer
    splits = [pre_tokenizers.Split(Regex(s), "isolated") for s in split]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        splits + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_tokens(added)
    return tokenizer


def bos_first(tokenizer, token):
    return processors.TemplateProcessing(single=[token, "$A"], pair=[token, "$A", token, "$B:1"],
                                         special_tokens=[(token, tokenizer.token_to_id(token))])


def sentencepiece(normalizer, pre_tokenizer):
    """A vocabulary in the order of SentencePiece: specials, bytes, pieces."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    learner.train_from_iterator(CORPUS[:6] + CORPUS[8:9], trainers.BpeTrainer(vocab_size=260, show_progress=False))
    learned = json.loads(learner.to_str())["model"]
    tokens = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"] + [f"<0x{b:02X}>" for b in range(256)]
    tokens += [t for t in sorted(learned["vocab"], key=learned["vocab"].get)]
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in learned["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges, unk_token="<unk>",
                                     fuse_unk=True, byte_fallback=True))
    if normalizer:
        tokenizer.normalizer = normalizer
    if pre_tokenizer:
        tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)])
    tokenizer.add_tokens(special("<unk>", "<s>", "</s>", "[INST]", "[/INST]"))
    tokenizer.post_processor = bos_first(tokenizer, "<s>")
    return tokenizer


def make_tokenizers():
    made = {}
    t = byte_level([QWEN], 420, special("<|endoftext|>", "<|im_start|>", "<|im_end|>") + special(
        "<tool_response>", "</tool_response>", "<think>", "</think>", special=False), normalizers.NFC(), ignore_merges=True)
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    made["qwen"] = save("qwen", t, {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "bos_token": None,
                                    "model_max_length": 10**30})
    t = byte_level([LLAMA3], 400, special("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
                                          "<|eot_id|>"), ignore_merges=True)
    t.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), bos_first(t, "<|begin_of_text|>")])
    made["llama3"] = save("llama3", t, {"bos_token": {"content": "<|begin_of_text|>", "special": True},
                                        "eos_token": "<|end_of_text|>"})
    t = byte_level(DEEPSEEK, 400, special(DS["bos"], DS["eos"], DS["user"], DS["assistant"]), normalizers.Sequence([]))
    made["deepseek"] = save("deepseek", t, {"bos_token": DS["bos"], "eos_token": DS["eos"], "pad_token": DS["eos"]})
    t = sentencepiece(None, pre_tokenizers.Metaspace(prepend_scheme="first", split=False))
    made["sentencepiece"] = save("sentencepiece", t, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"})
    t = sentencepiece(normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]), None)
    made["sentencepiece_legacy"] = save("sentencepiece_legacy", t, {"bos_token": "<s>", "eos_token": "</s>"})
    # GPT-2's own splitting with a blank before each piece, and added tokens of every kind.
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=True)
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=380, show_progress=False,
                                                      initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    t.add_tokens([AddedToken("<mask>", lstrip=True, normalized=False, special=True), AddedToken("<tool>", rstrip=True),
                  AddedToken("price", single_word=True), AddedToken("</s>", normalized=True, special=True)])
    made["gpt2"] = save("gpt2", t, None)
    # Characters, with the rarer components.
    t = Tokenizer(models.BPE(unk_token="[UNK]", fuse_unk=False))
    t.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(), normalizers.Strip(),
                                         normalizers.Replace(Regex(r"\d{2,}"), "7")])
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=True),
                                               pre_tokenizers.Punctuation("merged_with_previous"),
                                               pre_tokenizers.Split("ea", "merged_with_next"),
                                               pre_tokenizers.Split(Regex("[xyz]+"), "contiguous"),
                                               pre_tokenizers.Metaspace(prepend_scheme="always", split=True)])
    t.decoder = decoders.Metaspace(prepend_scheme="always")
    t.train_from_iterator(CORPUS[:3], trainers.BpeTrainer(vocab_size=160, show_progress=False, special_tokens=["[UNK]"]))
    t.add_tokens([AddedToken("MASK", normalized=True), AddedToken("A", normalized=False, single_word=True)])
    made["characters"] = save("characters", t, None)
    return made


# Template cases: a document is a list of (text, trained) segments; each segment is encoded apart.

def chatml(role, text):
    return f"<|im_start|>{role}\n{text}<|im_end|>\n"


def chatml_segments(messages, trained):
    segments = []
    for i, m in enumerate(messages):
        if i in trained:
            segments += [(f"<|im_start|>assistant\n", 0), (m["content"] + "<|im_end|>", 1), ("\n", 0)]
        else:
            segments += [(chatml(m["role"], m["content"]), 0)]
    return [segments]


def llama3_segments(messages, trained):
    segments = [("<|begin_of_text|>", 0)]
    for i, m in enumerate(messages):
        segments.append((f"<|start_header_id|>{m['role']}<|end_header_id|>\n\n", 0))
        segments.append((m["content"].strip() + "<|eot_id|>", int(i in trained)))
        if i not in trained:
            segments[-2:] = [(segments[-2][0] + segments[-1][0], 0)]
    return [segments]


def deepseek_segments(messages, trained):
    segments = [(DS["bos"], 0)]
    for i, m in enumerate(messages):
        if m["role"] == "assistant":
            segments += [(DS["assistant"], 0), (m["content"] + DS["eos"], int(i in trained))]
        else:
            segments += [((DS["user"] if m["role"] == "user" else "") + m["content"], 0)]
    return [segments]


def mistral_segments(messages, trained):
    system = messages[0]["content"] if messages[0]["role"] == "system" else None
    start = 0 if system is None else 1
    users = [i for i, m in enumerate(messages) if m["role"] == "user"]

    def document(end, counted):
        last = max(i for i in users if i < end)
        segments = [("<s>", 0)]
        for i in range(start, end):
            m = messages[i]
            if m["role"] == "user":
                text = f"{system}\n\n{m['content']}" if system is not None and i == last else m["content"]
                segments += [("[INST]", 0), (text, 0), ("[/INST]", 0)]
            else:
                segments += [(m["content"].strip(), int(i in counted)), ("</s>", int(i in counted))]
        return segments

    if system is None or len(users) == 1:
        return [document(len(messages), trained)]
    return [document(i + 1, {i}) for i in sorted(trained)]


def qwen3_segments(messages, trained):
    def think(m):
        content = m["content"]
        if "reasoning_content" in m:
            return m["reasoning_content"], content
        if "</think>" in content:
            before, after = content.split("</think>", 1)
            return before.split("<think>")[-1].strip("\n"), after.lstrip("\n")
        return "", content

    documents = []
    for end in sorted(trained):
        history = messages[:end]
        query = max([i for i, m in enumerate(history) if m["role"] == "user"], default=end - 1)
        text = ""
        for i, m in enumerate(history):
            if m["role"] != "assistant":
                text += chatml(m["role"], m["content"])
                continue
            reasoning, answer = think(m)
            block = f"<think>\n{reasoning}\n</think>\n\n" if i > query and (i == end - 1 or reasoning) else ""
            text += chatml("assistant", block + answer)
        reasoning, answer = think(messages[end])
        trained_text = f"<think>\n{reasoning.strip(chr(10))}\n</think>\n\n{answer.lstrip(chr(10))}<|im_end|>"
        documents.append([(text + "<|im_start|>assistant\n", 0), (trained_text, 1), ("\n", 0)])
    return documents


ALPACA = ("Below is an instruction that describes a task{}. Write a response that appropriately completes the request."
          "\n\n### Instruction:\n{}{}\n\n### Response:")


def plain_segments(template, record, bos, eos):
    if "text" in record:
        return [[(bos, 1), (record["text"], 1), (eos, 1)]]
    if "messages" in record:
        texts = [m["content"] for m in record["messages"]]
        prompt, answer, extra = "\n\n".join(texts[:-1]), texts[-1], ""
    elif "instruction" in record:
        prompt, extra, answer = record["instruction"], record["input"], record["output"]
    else:
        prompt, answer, extra = record["prompt"], record["completion"], ""
    if template == "alpaca":
        pair = ", paired with an input that provides further context" if extra else ""
        prompt = ALPACA.format(pair, prompt, f"\n\n### Input:\n{extra}" if extra else "")
    elif extra:
        prompt = f"{prompt}\n\n{extra}"
    if template == "simple":
        prompt += "\n"
    return [[(bos, 0), (prompt, 0), (answer, 1), (eos, 1)]]


def as_messages(record):
    if "messages" in record:
        return record["messages"]
    system = [{"role": "system", "content": record["system"]}] if "system" in record else []
    if "instruction" in record:
        question = record["instruction"] + (f"\n\n{record['input']}" if record["input"] else "")
        answer = record["output"]
    else:
        question, answer = record["prompt"], record["completion"]
    return system + [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def conversation(*contents, system=None):
    messages = [{"role": "system", "content": system}] if system is not None else []
    return {"messages": messages + [{"role": ["user", "assistant"][i % 2], "content": c} for i, c in enumerate(contents)]}


RECORDS = [
    conversation("Hello, what is the price?", "It's 120 dollars."),
    conversation("What is 2 + 3?", "5", system="You are a helpful assistant."),
    conversation("First question", " First answer ", "Second\n\nquestion ", "Second answer\nin two lines", "third?", "3rd!"),
    conversation("First question", "First answer", "Second question", "Second answer", system="Be short."),
    {"prompt": "The price rose", "completion": "by 3.5%"},
    {"prompt": " 中国 12345 ", "completion": "café\n", "system": "Answer in one word."},
    {"instruction": "Add the numbers.", "input": "12 and 30", "output": "42"},
    {"instruction": "Say hello.", "input": "", "output": "Hello world"},
]
REASONING = [
    conversation("How many?", "<think>\n48 and half as many\n</think>\n\n72", "And in May?", "<think>\nhalf\n</think>\n\n24"),
    {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A", "reasoning_content": "because\n"}]},
]
TEXT = [{"text": "Natalia sold 48 clips in April.\n"}, {"text": ""}]
SEGMENTS = {"chatml": chatml_segments, "qwen3": qwen3_segments, "llama3": llama3_segments, "mistral": mistral_segments,
            "deepseek": deepseek_segments}


def encode(tokenizer, segments):
    ids, mask = [], []
    for text, trained in segments:
        new = tokenizer.encode(text, add_special_tokens=False) if text else []
        ids += new
        mask += [trained] * len(new)
    if mask:
        mask[0] = 0
    return {"tokens": ids, "loss_mask": mask}


def check_jinja(template, tokenizer, jinja, record, documents):
    """What transformers renders equals the prompt, and for one-document templates the whole."""
    messages = as_messages(record)
    # The generation prompt of the last answer; before it, earlier answers are encoded as part of one text.
    last = documents[-1]
    end = len(last["loss_mask"])
    while end and not last["loss_mask"][end - 1]:
        end -= 1
    while end and last["loss_mask"][end - 1]:
        end -= 1
    prompt = tokenizer.apply_chat_template(messages[:-1], chat_template=jinja, add_generation_prompt=True, return_dict=False)
    assert prompt == last["tokens"][:end], (template, record, prompt, last["tokens"][:end])
    if template not in ("alpaca", "simple", "none"):
        whole = tokenizer.apply_chat_template(messages, chat_template=jinja, return_dict=False)
        assert whole == last["tokens"], (template, record, whole, last["tokens"])


def make_templates(tokenizers):
    pairs = [("qwen3", "qwen"), ("chatml", "qwen"), ("llama3", "llama3"), ("mistral", "sentencepiece"),
             ("mistral", "sentencepiece_legacy"), ("deepseek", "deepseek"), ("alpaca", "llama3"), ("alpaca", "qwen"),
             ("simple", "llama3"), ("simple", "sentencepiece"), ("none", "llama3"), ("none", "qwen")]
    with open(HERE / "templates" / "cases.jsonl", "w") as out:
        for template, name in pairs:
            tokenizer = tokenizers[name]
            config = json.loads((HERE / "tokenizers" / name / "tokenizer_config.json").read_text())
            eos = config["eos_token"]
            bos = "".join(tokenizer.convert_ids_to_tokens(tokenizer.encode("")))
            jinja = (HERE / "templates" / f"{template}.{name}.jinja").read_text()
            records = RECORDS + (REASONING if template == "qwen3" else []) + (TEXT if template == "none" else [])
            for record in records:
                for train_on in ("all", "last"):
                    if template in SEGMENTS:
                        messages = as_messages(record)
                        answers = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
                        trained = set(answers if train_on == "all" else answers[-1:])
                        documents = SEGMENTS[template](messages, trained)
                    else:
                        if len(record.get("messages", [])) > 3 or "system" in record:
                            continue
                        documents = plain_segments(template, record, bos, eos)
                    documents = [encode(tokenizer, d) for d in documents]
                    if "text" not in record and not (template == "alpaca" and record.get("input")):
                        check_jinja(template, tokenizer, jinja, record, documents)
                    row = {"tokenizer": name, "template": template, "train_on": train_on, "record": record,
                           "documents": documents}
                    out.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    make_templates(make_tokenizers())
