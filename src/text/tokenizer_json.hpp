#pragma once
#include <memory>

#include "tables.hpp"

namespace verne {

/// Reads tokenizer.json (and tokenizer_config.json, which may be empty). Throws UserError only.
std::shared_ptr<const Tokenizer::Tables> read_tokenizer(std::string json, std::string config_json,
                                                        const std::string& origin);

}  // namespace verne
