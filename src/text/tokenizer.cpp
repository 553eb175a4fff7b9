#include "verne/text/tokenizer.hpp"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tokenizer_json.hpp"
#include "verne/base/error.hpp"

namespace verne {
namespace {

namespace fs = std::filesystem;

std::string read_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  require_user(file.good(), "{}: cannot be read", path.string());
  std::error_code error;
  const auto size = fs::file_size(path, error);
  require_user(!error, "{}: cannot be read: {}", path.string(), error.message());
  std::string text(size, '\0');
  file.read(text.data(), static_cast<std::streamsize>(size));
  require_user(file.gcount() == static_cast<std::streamsize>(size), "{}: cannot be read to its end",
               path.string());
  return text;
}

}  // namespace

TokenId Tokenizer::Tables::find(std::string_view token) const {
  const TokenId id = added_vocabulary.find(token);
  return id != kNoToken ? id : model.vocabulary.find(token);
}

void make_token_sets(const Tokenizer::Tables& tables, std::span<const TokenId> plain_text_tokens,
                     AddedTokenSet& raw, AddedTokenSet& normalized) {
  for (const AddedToken& token : tables.added) {
    if (std::find(plain_text_tokens.begin(), plain_text_tokens.end(), token.id) != plain_text_tokens.end())
      continue;
    (token.normalized ? normalized : raw).add(token);
  }
}

std::string_view Tokenizer::Tables::added_spelling(TokenId id) const {
  return std::lower_bound(added.begin(), added.end(), id,
                          [](const AddedToken& token, TokenId wanted) { return token.id < wanted; })
      ->spelling;
}

Tokenizer Tokenizer::load(const fs::path& path) {
  const bool folder = fs::is_directory(path);
  const fs::path file = folder ? path / "tokenizer.json" : path;
  require_user(fs::exists(file), "{}: {}", file.string(),
               folder ? "the folder holds no tokenizer.json" : "there is no such file");
  const fs::path config = file.parent_path() / "tokenizer_config.json";
  return from_json(read_file(file), fs::exists(config) ? read_file(config) : "", file.string());
}

Tokenizer Tokenizer::from_json(std::string json, std::string config_json, const std::string& origin) {
  return Tokenizer(read_tokenizer(std::move(json), std::move(config_json), origin));
}

void Tokenizer::encode(std::string_view text, std::vector<TokenId>& out) const {
  Encoder(*this).encode(text, out);
}
std::vector<TokenId> Tokenizer::encode(std::string_view text) const {
  std::vector<TokenId> ids;
  encode(text, ids);
  return ids;
}

std::span<const TokenId> Tokenizer::prefix_ids() const {
  return tables_->prefix;
}
std::vector<TokenId> Tokenizer::with_special(std::span<const TokenId> ids) const {
  std::vector<TokenId> all(tables_->prefix);
  all.insert(all.end(), ids.begin(), ids.end());
  all.insert(all.end(), tables_->suffix.begin(), tables_->suffix.end());
  return all;
}

std::string Tokenizer::decode(std::span<const TokenId> ids) const {
  std::vector<std::string> tokens;
  tokens.reserve(ids.size());
  for (const TokenId id : ids)
    if (tables_->added_vocabulary.has(id))
      tokens.emplace_back(tables_->added_spelling(id));
    else if (tables_->model.vocabulary.has(id))
      tokens.emplace_back(tables_->model.vocabulary.token(id));
  return tables_->decoder.decode(std::move(tokens));
}

std::optional<TokenId> Tokenizer::id_of(std::string_view token) const {
  const TokenId id = tables_->find(token);
  return id == kNoToken ? std::nullopt : std::optional(id);
}
std::optional<std::string_view> Tokenizer::token_of(TokenId id) const {
  if (tables_->added_vocabulary.has(id)) return tables_->added_vocabulary.token(id);
  if (tables_->model.vocabulary.has(id)) return tables_->model.vocabulary.token(id);
  return std::nullopt;
}
std::int64_t Tokenizer::vocab_size() const {
  return std::max(tables_->model.vocabulary.size(), tables_->added_vocabulary.size());
}
bool Tokenizer::is_added(TokenId id) const {
  return tables_->added_vocabulary.has(id);
}
std::optional<TokenId> Tokenizer::bos_id() const {
  return tables_->bos;
}
std::optional<TokenId> Tokenizer::eos_id() const {
  return tables_->eos;
}
std::optional<TokenId> Tokenizer::pad_id() const {
  return tables_->pad;
}
const std::string& Tokenizer::json() const {
  return tables_->json;
}
const std::string& Tokenizer::config_json() const {
  return tables_->config_json;
}
const std::string& Tokenizer::hash() const {
  return tables_->hash;
}

Tokenizer Tokenizer::with_added_tokens(std::span<const std::string> tokens) const {
  auto added = nlohmann::ordered_json::array();
  std::vector<std::string_view> seen;
  std::int64_t next_id = vocab_size();
  for (const std::string& token : tokens) {
    require_user(!token.empty(), "an empty text cannot be a special token");
    if (tables_->added_vocabulary.find(token) != kNoToken ||
        std::find(seen.begin(), seen.end(), token) != seen.end())
      continue;
    seen.push_back(token);
    const TokenId in_model = tables_->model.vocabulary.find(token);
    added.push_back({{"id", in_model != kNoToken ? std::int64_t{in_model} : next_id++},
                     {"content", token},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  if (added.empty()) return *this;
  auto root = nlohmann::ordered_json::parse(tables_->json);
  auto& list = root["added_tokens"];
  if (!list.is_array()) list = nlohmann::ordered_json::array();
  for (auto& entry : added) list.push_back(std::move(entry));
  return from_json(root.dump(), tables_->config_json, tables_->origin);
}

}  // namespace verne
