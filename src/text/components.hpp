#pragma once
// The components of a tokenizer.json: normalizer, pre-tokenizer, post-processor, decoder. Each is filled from
// its element; a type that is not supported is a UserError that names it. `where` names file and key.
#include "json_read.hpp"
#include "tables.hpp"

namespace verne {

void read_normalizer(const json_read::Element& element, const std::string& where, Normalizer& normalizer);
/// Says in which alphabet the pieces are to be spelled.
BpeModel::Alphabet read_pre_tokenizer(const json_read::Element& element, const std::string& where,
                                      PreTokenizer& pre_tokenizer);
void read_post_processor(const json_read::Element& element, const std::string& where,
                         std::vector<TokenId>& prefix, std::vector<TokenId>& suffix);
void read_decoder(const json_read::Element& element, const std::string& where, Decoder& decoder);

}  // namespace verne
