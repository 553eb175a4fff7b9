// verne-train-tokenizer INPUT.jsonl VOCAB_SIZE OUTPUT_FOLDER: makes a byte-level BPE tokenizer of the string
// fields of JSONL records. ChatML's control tokens are added; <|im_end|> ends a turn.
#include <fmt/format.h>

#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "verne/base/error.hpp"
#include "verne/text/bpe_trainer.hpp"

namespace {

namespace fs = std::filesystem;

std::vector<std::string> read_texts(const fs::path& path) {
  std::ifstream in(path);
  if (!in) throw verne::UserError(fmt::format("{}: cannot be read", path.string()));
  std::vector<std::string> texts;
  std::string line;
  for (int number = 1; std::getline(in, line); ++number) {
    const auto record = nlohmann::json::parse(line, nullptr, false);
    if (!record.is_object())
      throw verne::UserError(fmt::format("{}, line {}: not a JSON object", path.string(), number));
    for (const auto& [key, value] : record.items())
      if (value.is_string()) texts.push_back(value.get<std::string>());
  }
  return texts;
}

void write(const fs::path& path, const std::string& text) {
  std::ofstream out(path);
  out << text;
  if (!out.flush()) throw verne::UserError(fmt::format("{}: cannot be written", path.string()));
}

}  // namespace

int main(int argc, char** argv) {
  const std::span arguments(argv, static_cast<std::size_t>(argc));
  if (argc != 4) {
    fmt::print(stderr, "usage: {} INPUT.jsonl VOCAB_SIZE OUTPUT_FOLDER\n", arguments[0]);
    return 2;
  }
  try {
    const fs::path output = arguments[3];
    verne::BpeTrainerOptions options;
    options.vocab_size = std::stoll(arguments[2]);
    options.special_tokens = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
    fs::create_directories(output);
    write(output / "tokenizer.json", verne::train_byte_level_bpe(read_texts(arguments[1]), options));
    const nlohmann::ordered_json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                                           {"eos_token", "<|im_end|>"},
                                           {"pad_token", "<|endoftext|>"},
                                           {"clean_up_tokenization_spaces", false}};
    write(output / "tokenizer_config.json", config.dump(2) + "\n");
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 2;
  }
}
