#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "verne/text/chat_template.hpp"

namespace verne {

enum class Trained : std::uint8_t { no = 0, yes = 1 };

/// Collects control tokens and text. Text between two control tokens, or up to where training begins or ends,
/// is one run and encoded as such.
class DocumentBuilder {
 public:
  DocumentBuilder(Encoder& encoder, TextPosition position) : encoder_(encoder), position_(position) {}

  void control(TokenId id) {
    flush();
    put(id);
  }
  void text(std::string_view text) { run_.append(text); }
  void train(Trained trained) {
    flush();
    trained_ = trained;
  }
  Document finish(std::int64_t& spellings) {
    flush();
    spellings += spellings_;
    if (!document_.loss_mask.empty()) document_.loss_mask[0] = 0;
    return std::move(document_);
  }

 private:
  void put(TokenId id) {
    document_.tokens.push_back(id);
    document_.loss_mask.push_back(static_cast<std::uint8_t>(trained_));
  }
  void flush() {
    if (run_.empty()) return;
    const auto position = document_.tokens.empty() ? TextPosition::start : position_;
    spellings_ += encoder_.encode(run_, document_.tokens, position);
    document_.loss_mask.resize(document_.tokens.size(), static_cast<std::uint8_t>(trained_));
    run_.clear();
  }

  Encoder& encoder_;
  TextPosition position_;  ///< of runs after the first
  Document document_;
  std::string run_;
  Trained trained_ = Trained::no;
  std::int64_t spellings_ = 0;
};

}  // namespace verne
