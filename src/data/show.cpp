#include "verne/data/show.hpp"

#include <algorithm>
#include <ostream>
#include <span>

#include "verne/base/error.hpp"

namespace verne {
namespace {

std::string spell(std::span<const TokenId> tokens, const std::optional<Tokenizer>& tokenizer) {
  return tokenizer ? printable(tokenizer->decode(tokens)) : fmt::format("{}", fmt::join(tokens, " "));
}

}  // namespace

std::string marked_text(const Document& document, const std::optional<Tokenizer>& tokenizer,
                        Marking marking) {
  const std::span<const TokenId> tokens = document.tokens;
  std::string result;
  for (std::size_t begin = 0; begin < tokens.size();) {
    const std::uint8_t trained = document.loss_mask[begin];
    std::size_t end = begin + 1;
    while (end < tokens.size() && document.loss_mask[end] == trained) ++end;
    const std::string text = spell(tokens.subspan(begin, end - begin), tokenizer);
    if (marking == Marking::colour) {
      result += fmt::format("\x1b[{}m{}\x1b[0m", trained != 0 ? "1;32" : "2", text);
    } else {
      result += trained != 0 ? "[[" + text + "]]" : text;
    }
    begin = end;
  }
  return result;
}

void show_documents(const ShardReader& shard, const std::optional<Tokenizer>& tokenizer, std::int64_t count,
                    Marking marking, std::ostream& out) {
  const std::span<const std::uint64_t> offsets = shard.offsets();
  const std::int64_t shown = std::min(count, shard.documents());
  for (std::int64_t i = 0; i < shown; ++i) {
    const auto index = static_cast<std::size_t>(i);
    const auto first = static_cast<std::int64_t>(offsets[index]);
    Document document;
    document.tokens.resize(offsets[index + 1] - offsets[index]);
    document.loss_mask.resize(document.tokens.size());
    shard.read_tokens(first, document.tokens);
    shard.read_loss_mask(first, document.loss_mask);
    const auto trained = std::count(document.loss_mask.begin(), document.loss_mask.end(), 1);
    out << message_text("--- {} document {} of {}: {} tokens, {} trained{}\n",
                        shard.path().filename().string(), i + 1, shard.documents(), document.tokens.size(),
                        trained, marking == Marking::brackets ? " (in [[ ]])" : " (green)")
        << marked_text(document, tokenizer, marking) << "\n";
  }
}

}  // namespace verne
