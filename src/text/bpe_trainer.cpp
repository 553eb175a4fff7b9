#include "verne/text/bpe_trainer.hpp"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <queue>
#include <unordered_map>
#include <utility>

#include "verne/base/error.hpp"
#include "verne/text/bpe.hpp"
#include "verne/text/unicode.hpp"
#include "verne/text/word_scanner.hpp"

namespace verne {
namespace {

constexpr std::int64_t kBytes = 256;
using Pair = std::pair<TokenId, TokenId>;
struct PairHash {
  std::size_t operator()(const Pair& pair) const {
    return static_cast<std::size_t>((std::uint64_t{pair.first} << 32 | pair.second) * 0x9E3779B97F4A7C15u >>
                                    16);
  }
};

struct Word {
  std::vector<TokenId> symbols;
  std::int64_t count = 0;
};

/// The distinct words of the texts, in order of their bytes, as ids of bytes.
std::vector<Word> count_words(std::span<const std::string> texts) {
  const UnicodeTables& tables = UnicodeTables::get();
  std::map<std::string, std::int64_t> counts;
  for (const std::string& raw : texts) {
    require_user(is_valid_utf8(raw), "a text to learn from is not valid UTF-8");
    const std::string text = normalize_unicode(raw, NormalForm::nfc);
    for (std::size_t begin = 0; begin < text.size();) {
      const std::size_t end = next_word(WordPattern::qwen, tables, text, begin);
      ++counts[text.substr(begin, end - begin)];
      begin = end;
    }
  }
  std::vector<Word> words;
  for (const auto& [text, count] : counts) {
    Word word{{}, count};
    for (const char c : text) word.symbols.push_back(static_cast<unsigned char>(c));
    words.push_back(std::move(word));
  }
  return words;
}

/// Counts of pairs, which words hold them, and the most frequent one. Ids below 256 are bytes.
class PairStatistics {
 public:
  explicit PairStatistics(std::vector<Word> words) : words_(std::move(words)) {
    for (std::size_t i = 0; i < words_.size(); ++i) add_word(i, 1);
    for (const auto& [pair, entry] : pairs_) heap_.push({entry.count, pair});
  }

  struct Candidate {
    std::int64_t count;
    Pair pair;
    bool operator<(const Candidate& other) const {
      return count != other.count ? count < other.count : pair > other.pair;
    }
  };
  std::optional<Candidate> most_frequent() {
    while (!heap_.empty()) {
      const Candidate top = heap_.top();
      const std::int64_t count = pairs_[top.pair].count;
      if (count == top.count && count > 0) return top;
      heap_.pop();
      if (count > 0) heap_.push({count, top.pair});
    }
    return std::nullopt;
  }

  void merge(const Pair& pair, TokenId result) {
    const std::vector<std::size_t> touched = std::exchange(pairs_[pair].words, {});
    changed_.clear();
    for (const std::size_t index : touched) {
      std::vector<TokenId>& symbols = words_[index].symbols;
      if (!holds(symbols, pair)) continue;
      add_word(index, -1);
      std::size_t kept = 0;
      for (std::size_t i = 0; i < symbols.size(); ++kept) {
        const bool here = i + 1 < symbols.size() && symbols[i] == pair.first && symbols[i + 1] == pair.second;
        symbols[kept] = here ? result : symbols[i];
        i += here ? 2 : 1;
      }
      symbols.resize(kept);
      add_word(index, 1);
    }
    for (const Pair& changed : changed_)
      if (const std::int64_t count = pairs_[changed].count; count > 0) heap_.push({count, changed});
  }

 private:
  struct Entry {
    std::int64_t count = 0;
    std::vector<std::size_t> words;  ///< that hold the pair, or did; a word may stand there more than once
  };
  static bool holds(const std::vector<TokenId>& symbols, const Pair& pair) {
    for (std::size_t i = 0; i + 1 < symbols.size(); ++i)
      if (symbols[i] == pair.first && symbols[i + 1] == pair.second) return true;
    return false;
  }
  void add_word(std::size_t index, std::int64_t sign) {
    const Word& word = words_[index];
    for (std::size_t i = 0; i + 1 < word.symbols.size(); ++i) {
      const Pair pair{word.symbols[i], word.symbols[i + 1]};
      Entry& entry = pairs_[pair];
      entry.count += sign * word.count;
      if (sign > 0) {
        if (entry.words.empty() || entry.words.back() != index) entry.words.push_back(index);
        changed_.push_back(pair);
      }
    }
  }

  std::vector<Word> words_;
  std::unordered_map<Pair, Entry, PairHash> pairs_;
  std::priority_queue<Candidate> heap_;
  std::vector<Pair> changed_;
};

}  // namespace

std::string train_byte_level_bpe(std::span<const std::string> texts, const BpeTrainerOptions& options) {
  const auto specials = static_cast<std::int64_t>(options.special_tokens.size());
  require_user(
      options.vocab_size >= kBytes + specials && options.vocab_size <= kMaxVocabSize,
      "a vocabulary of {} tokens: expected at least {} (256 bytes and {} special tokens) and at most {}",
      options.vocab_size, kBytes + specials, specials, kMaxVocabSize);
  std::vector<std::string> spelled;  // by id, in the byte alphabet
  auto vocabulary = nlohmann::ordered_json::object();
  const auto add = [&](std::string token) {
    vocabulary[token] = spelled.size();
    spelled.push_back(std::move(token));
  };
  for (int byte = 0; byte < kBytes; ++byte) {
    std::string letter;
    append_utf8(letter, byte_to_code_point(static_cast<unsigned char>(byte)));
    add(std::move(letter));
  }
  PairStatistics statistics(count_words(texts));
  auto merges = nlohmann::ordered_json::array();
  while (static_cast<std::int64_t>(spelled.size()) + specials < options.vocab_size) {
    const auto best = statistics.most_frequent();
    if (!best || best->count < options.min_frequency) break;
    const auto [left, right] = best->pair;
    std::string joined = spelled[left] + spelled[right];
    merges.push_back({spelled[left], spelled[right]});
    // Two pairs may spell the same token: the second rule then leads to it, and no id is lost.
    const auto known = vocabulary.find(joined);
    const auto result =
        known != vocabulary.end() ? known->get<TokenId>() : static_cast<TokenId>(spelled.size());
    if (known == vocabulary.end()) add(std::move(joined));
    statistics.merge(best->pair, result);
  }
  auto added = nlohmann::ordered_json::array();
  auto next_id = static_cast<std::int64_t>(spelled.size());
  for (const std::string& token : options.special_tokens) {
    require_user(!token.empty() && !vocabulary.contains(token), "'{}' cannot be a special token", token);
    added.push_back({{"id", next_id++},
                     {"content", token},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  const nlohmann::ordered_json byte_level{
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", false}, {"use_regex", false}};
  const nlohmann::ordered_json split{{"type", "Split"},
                                     {"pattern", {{"Regex", word_pattern_regex(WordPattern::qwen)}}},
                                     {"behavior", "Isolated"},
                                     {"invert", false}};
  const nlohmann::ordered_json root{
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", added},
      {"normalizer", {{"type", "NFC"}}},
      {"pre_tokenizer",
       {{"type", "Sequence"}, {"pretokenizers", nlohmann::ordered_json::array({split, byte_level})}}},
      {"post_processor", nullptr},
      {"decoder", byte_level},
      {"model",
       {{"type", "BPE"},
        {"dropout", nullptr},
        {"unk_token", nullptr},
        {"continuing_subword_prefix", nullptr},
        {"end_of_word_suffix", nullptr},
        {"fuse_unk", false},
        {"byte_fallback", false},
        {"ignore_merges", false},
        {"vocab", vocabulary},
        {"merges", merges}}}};
  return root.dump();
}

}  // namespace verne
