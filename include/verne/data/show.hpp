#pragma once
#include <cstdint>
#include <iosfwd>
#include <optional>
#include <string>

#include "verne/io/shard.hpp"
#include "verne/text/chat_template.hpp"

namespace verne {

/// How trained tokens are told from untrained ones.
enum class Marking {
  brackets,  ///< [[trained]]
  colour     ///< bold green on a terminal, untrained ones dim
};

/// The document as text, with its trained stretches marked; control characters of its content are spelled as
/// \xNN. Without a tokenizer the ids are shown.
std::string marked_text(const Document& document, const std::optional<Tokenizer>& tokenizer, Marking marking);

/// Prints the first `count` documents of a shard.
void show_documents(const ShardReader& shard, const std::optional<Tokenizer>& tokenizer, std::int64_t count,
                    Marking marking, std::ostream& out);

}  // namespace verne
