#include "tokenizer_json.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "components.hpp"
#include "json_read.hpp"
#include "verne/base/hash.hpp"
#include "verne/text/unicode.hpp"

namespace verne {
namespace {

using json_read::bool_at;
using json_read::Element;
using json_read::find;
using json_read::Object;
using json_read::string_at;
using Tables = Tokenizer::Tables;

constexpr std::size_t kMaxJsonBytes = std::size_t{1} << 30;
constexpr std::size_t kMaxAddedTokenBytes = 4096;

Element parse(simdjson::dom::parser& parser, const std::string& json, const std::string& where) {
  require_user(json.size() <= kMaxJsonBytes, "{}: {} bytes are more than the {} that are accepted", where,
               json.size(), kMaxJsonBytes);
  Element root;
  const auto error = parser.parse(json).get(root);
  require_user(error == simdjson::SUCCESS, "{}: not valid JSON: {}", where, simdjson::error_message(error));
  return root;
}

void read_vocabulary(const Object& model, const std::string& where, Vocabulary& vocabulary) {
  const std::string vocab_where = where + ", vocab";
  const Object entries = json_read::get_object(json_read::require_key(model, "vocab", where), vocab_where);
  vocabulary.reserve(static_cast<std::int64_t>(entries.size()));
  for (const auto& [token, value] : entries) {
    std::int64_t id = 0;
    require_user(value.get(id) == simdjson::SUCCESS && id >= 0 && id < kMaxVocabSize,
                 "{}: the id of '{}' is not a whole number from 0 to {}", vocab_where, token,
                 kMaxVocabSize - 1);
    switch (vocabulary.add(token, static_cast<TokenId>(id))) {
      case Vocabulary::Added::token_exists:
        throw_user_error("{}: the token '{}' stands there twice", vocab_where, token);
      case Vocabulary::Added::id_exists:
        throw_user_error("{}: '{}' and '{}' have the same id {}", vocab_where,
                         vocabulary.token(static_cast<TokenId>(id)), token, id);
      case Vocabulary::Added::yes:
        break;
    }
  }
}

/// The two halves of a merge: "a b" or ["a", "b"].
std::pair<std::string_view, std::string_view> read_pair(const Element& rule, const std::string& where,
                                                        std::int64_t index) {
  std::string_view line;
  if (rule.get(line) == simdjson::SUCCESS) {
    const std::size_t blank = line.find(' ');
    require_user(blank != std::string_view::npos && line.find(' ', blank + 1) == std::string_view::npos,
                 "{}[{}]: expected two tokens and one blank between them, found '{}'", where, index, line);
    return {line.substr(0, blank), line.substr(blank + 1)};
  }
  json_read::Array pair;
  std::string_view left, right;
  require_user(rule.get(pair) == simdjson::SUCCESS && pair.size() == 2 &&
                   pair.at(0).get(left) == simdjson::SUCCESS && pair.at(1).get(right) == simdjson::SUCCESS,
               "{}[{}]: expected \"a b\" or [\"a\", \"b\"]", where, index);
  return {left, right};
}

void read_merges(const Object& model, const std::string& where, BpeModel& bpe) {
  const std::string merges_where = where + ", merges";
  const json_read::Array rules =
      json_read::get_array(json_read::require_key(model, "merges", where), merges_where);
  // A simdjson list counts at most 0xFFFFFF of its elements; more than that is refused while reading.
  bpe.merges.reserve(static_cast<std::int64_t>(rules.size()));
  std::int64_t index = 0;
  std::uint32_t rank = 0;
  std::string joined;
  for (const Element rule : rules) {
    require_user(index < static_cast<std::int64_t>(rules.size()), "{}: more than {} merges", merges_where,
                 index);
    std::string_view line;
    const bool header = rule.get(line) == simdjson::SUCCESS && line.starts_with("#version");
    if (!header) {
      const auto [left, right] = read_pair(rule, merges_where, index);
      joined.assign(left).append(right);
      const auto id = [&](std::string_view token) {
        const TokenId found = bpe.vocabulary.find(token);
        require_user(found != kNoToken, "{}[{}]: the token '{}' is not in the vocabulary", merges_where,
                     index, token);
        return found;
      };
      const TokenId left_id = id(left), right_id = id(right);
      bpe.merges.add(left_id, right_id, {rank++, id(joined)});
    }
    ++index;
  }
}

void refuse_if_set(const Object& model, std::string_view key, const std::string& where) {
  const auto element = find(model, key);
  if (!element) return;
  std::string_view text;
  double number = 1;
  if (element->get(text) == simdjson::SUCCESS && text.empty()) return;
  if (element->get(number) == simdjson::SUCCESS && number == 0) return;
  throw_user_error("{}: '{}' is not supported; only null is", where, key);
}

void read_model(const Element& element, const std::string& where, BpeModel& bpe) {
  const Object model = json_read::get_object(element, where);
  if (const auto type = find(model, "type")) {
    const std::string_view name = json_read::get_string(*type, where + ", type");
    require_user(name == "BPE", "{}: the model '{}' is not supported; only BPE is", where, name);
  }
  for (const std::string_view key : {"dropout", "continuing_subword_prefix", "end_of_word_suffix"})
    refuse_if_set(model, key, where);
  read_vocabulary(model, where, bpe.vocabulary);
  read_merges(model, where, bpe);
  bpe.fuse_unknown = bool_at(model, "fuse_unk", false, where);
  bpe.byte_fallback = bool_at(model, "byte_fallback", false, where);
  bpe.ignore_merges = bool_at(model, "ignore_merges", false, where);
  if (find(model, "unk_token")) {
    const std::string_view unknown = string_at(model, "unk_token", where);
    bpe.unknown = bpe.vocabulary.find(unknown);
    require_user(bpe.unknown != kNoToken, "{}: unk_token '{}' is not in the vocabulary", where, unknown);
  }
}

void read_added_tokens(const Element& element, const std::string& where, Tables& tables) {
  std::int64_t index = 0;
  for (const Element entry : json_read::get_array(element, where)) {
    const std::string entry_where = fmt::format("{}[{}]", where, index++);
    const Object object = json_read::get_object(entry, entry_where);
    AddedToken token;
    const std::int64_t id = json_read::count_at(object, "id", entry_where);
    require_user(id < kMaxVocabSize, "{}: the id {} is larger than {}", entry_where, id, kMaxVocabSize - 1);
    token.id = static_cast<TokenId>(id);
    token.content = string_at(object, "content", entry_where);
    if (token.content.empty()) continue;
    require_user(token.content.size() <= kMaxAddedTokenBytes,
                 "{}: content of {} bytes, at most {} are accepted", entry_where, token.content.size(),
                 kMaxAddedTokenBytes);
    token.single_word = bool_at(object, "single_word", false, entry_where);
    token.lstrip = bool_at(object, "lstrip", false, entry_where);
    token.rstrip = bool_at(object, "rstrip", false, entry_where);
    token.special = bool_at(object, "special", false, entry_where);
    token.normalized = bool_at(object, "normalized", !token.special, entry_where);
    const Vocabulary& vocabulary = tables.model.vocabulary;
    const TokenId in_model = vocabulary.find(token.content);
    require_user(in_model == kNoToken || in_model == token.id,
                 "{}: '{}' has the id {}, but {} in the model's vocabulary", entry_where, token.content, id,
                 in_model);
    require_user(in_model != kNoToken || !vocabulary.has(token.id),
                 "{}: '{}' has the id {}, which is that of '{}' in the model's vocabulary", entry_where,
                 token.content, id, vocabulary.has(token.id) ? vocabulary.token(token.id) : "");
    require_user(tables.added_vocabulary.add(token.content, token.id) == Vocabulary::Added::yes,
                 "{}: the token '{}' or its id {} stands there twice", entry_where, token.content, id);
    tables.added.push_back(std::move(token));
  }
  std::sort(tables.added.begin(), tables.added.end(),
            [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
}

std::optional<TokenId> read_named_token(const nlohmann::json& config, const char* key,
                                        const std::string& where, const Tables& tables) {
  const auto found = config.find(key);
  if (found == config.end() || found->is_null()) return std::nullopt;
  const nlohmann::json* content = &*found;
  if (content->is_object() && content->contains("content")) content = &(*content)["content"];
  require_user(content->is_string(),
               "{}, {}: expected a string or an object with a string 'content', found {}", where, key,
               found->type_name());
  const TokenId id = tables.find(content->get_ref<const std::string&>());
  return id == kNoToken ? std::nullopt : std::optional(id);
}

/// Not by simdjson, which refuses the 1e30 (spelled out) that many files give as model_max_length.
void read_config(Tables& tables, const std::string& where) {
  if (tables.config_json.empty()) return;
  nlohmann::json config;
  try {
    config = nlohmann::json::parse(tables.config_json);
  } catch (const nlohmann::json::exception& error) {
    throw_user_error("{}: not valid JSON: {}", where, error.what());
  }
  require_user(config.is_object(), "{}: expected an object, found {}", where, config.type_name());
  tables.bos = read_named_token(config, "bos_token", where, tables);
  tables.eos = read_named_token(config, "eos_token", where, tables);
  tables.pad = read_named_token(config, "pad_token", where, tables);
}

/// No token that merges make has `replacement` after another character, so that pieces can be cut before it.
bool no_merge_crosses(const BpeModel& model, std::string_view replacement) {
  if (model.ignore_merges || model.vocabulary.find(replacement) == kNoToken) return false;
  for (TokenId id = 0; id < model.vocabulary.size(); ++id) {
    if (!model.vocabulary.has(id)) continue;
    std::string_view token = model.vocabulary.token(id);
    while (token.starts_with(replacement)) token.remove_prefix(replacement.size());
    if (token.find(replacement) != std::string_view::npos) return false;
  }
  return true;
}

/// A digest of what the tokenizer does, however its JSON is laid out.
std::string content_hash(const Tables& tables, const Object& root) {
  std::string digest;
  const auto put = [&](std::string_view text) {
    digest += fmt::format("{}:", text.size());
    digest.append(text);
  };
  const Vocabulary& vocabulary = tables.model.vocabulary;
  for (TokenId id = 0; id < vocabulary.size(); ++id)
    if (vocabulary.has(id)) {
      put(vocabulary.token(id));
      digest += fmt::format("{};", id);
    }
  for (const AddedToken& token : tables.added) {
    put(token.content);
    digest += fmt::format("{}{}{}{}{}{};", token.id, token.single_word ? 'w' : '-', token.lstrip ? 'l' : '-',
                          token.rstrip ? 'r' : '-', token.normalized ? 'n' : '-', token.special ? 's' : '-');
  }
  for (const std::string_view key : {"normalizer", "pre_tokenizer", "post_processor", "decoder"}) {
    const auto element = find(root, key);
    put(element ? std::string(simdjson::minify(*element)) : "");
  }
  const Object model =
      json_read::get_object(json_read::require_key(root, "model", tables.origin), tables.origin);
  for (const Element rule :
       json_read::get_array(json_read::require_key(model, "merges", tables.origin), tables.origin)) {
    const auto [left, right] = read_pair(rule, tables.origin, 0);
    put(left);
    put(right);
  }
  for (const TokenId id : {tables.model.unknown, tables.bos.value_or(kNoToken), tables.eos.value_or(kNoToken),
                           tables.pad.value_or(kNoToken)})
    digest += fmt::format("{};", id);
  digest += tables.model.fuse_unknown ? 'f' : '-';
  digest += tables.model.byte_fallback ? 'b' : '-';
  digest += tables.model.ignore_merges ? 'i' : '-';
  return hex64(xxh3(digest));
}

}  // namespace

std::shared_ptr<const Tables> read_tokenizer(std::string json, std::string config_json,
                                             const std::string& origin) {
  auto tables = std::make_shared<Tables>();
  tables->origin = origin;
  tables->json = std::move(json);
  tables->config_json = std::move(config_json);
  simdjson::dom::parser parser;
  const Object root = json_read::get_object(parse(parser, tables->json, origin), origin);
  read_model(json_read::require_key(root, "model", origin), origin + ", model", tables->model);
  if (const auto added = find(root, "added_tokens"))
    read_added_tokens(*added, origin + ", added_tokens", *tables);
  if (const auto part = find(root, "normalizer"))
    read_normalizer(*part, origin + ", normalizer", tables->normalizer);
  if (const auto part = find(root, "pre_tokenizer"))
    tables->model.alphabet = read_pre_tokenizer(*part, origin + ", pre_tokenizer", tables->pre_tokenizer);
  if (const auto part = find(root, "post_processor"))
    read_post_processor(*part, origin + ", post_processor", tables->prefix, tables->suffix);
  if (const auto part = find(root, "decoder")) read_decoder(*part, origin + ", decoder", tables->decoder);
  for (const auto* ids : {&tables->prefix, &tables->suffix})
    for (const TokenId id : *ids)
      require_user(tables->model.vocabulary.has(id) || tables->added_vocabulary.has(id),
                   "{}, post_processor: no token has the id {}", origin, id);
  read_config(*tables, origin + " (tokenizer_config.json)");
  tables->model.prepare();
  // The replacement of a Metaspace, or the usual one where a normalizer puts it.
  const std::string replacement(tables->pre_tokenizer.final_metaspace().value_or("\xE2\x96\x81"));
  if (tables->model.alphabet == BpeModel::Alphabet::characters &&
      no_merge_crosses(tables->model, replacement))
    tables->safe_cut = replacement;
  std::string buffer;
  for (AddedToken& token : tables->added)
    token.spelling = token.normalized ? tables->normalizer.apply(token.content, buffer) : token.content;
  make_token_sets(*tables, {}, tables->raw_set, tables->normalized_set);
  tables->hash = content_hash(*tables, root);
  return tables;
}

}  // namespace verne
