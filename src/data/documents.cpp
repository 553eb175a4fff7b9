#include "verne/data/documents.hpp"

#include <utility>

#include "verne/base/error.hpp"

namespace verne {
namespace {

RecordOptions with_vocab_size(RecordOptions options, const std::optional<Tokenizer>& tokenizer) {
  if (!options.vocab_size && tokenizer) options.vocab_size = tokenizer->vocab_size();
  return options;
}

template <class Work>
auto at_line(const JsonlFile& file, const JsonlLine& line, const Work& work) {
  try {
    return work();
  } catch (const UserError& error) {
    throw_user_error("{}:{}: {}", file.path().string(), file.line_number(line.offset), error.what());
  }
}

}  // namespace

DocumentMaker::DocumentMaker(const std::optional<Tokenizer>& tokenizer, const RenderOptions& render,
                             RecordOptions record)
    : parser_(with_vocab_size(std::move(record), tokenizer)) {
  if (tokenizer) renderer_.emplace(*tokenizer, render);
}

LineDocuments DocumentMaker::make(std::string_view line) {
  Record record = parser_.parse(line);
  LineDocuments result;
  result.metadata = std::move(record.metadata);
  if (auto* tokenized = std::get_if<TokenizedRecord>(&record.content)) {
    result.documents.push_back({std::move(tokenized->tokens), std::move(tokenized->loss_mask)});
    return result;
  }
  require_user(
      renderer_.has_value(),
      "a record of text, but there is no tokenizer; give prepare.tokenizer, a folder or a tokenizer.json, or "
      "tokenized records");
  const auto& content = std::get<TextRecord>(record.content);
  result.form = std::holds_alternative<PlainText>(content) ? RecordForm::text : RecordForm::templated;
  Rendered rendered = renderer_->render(content);
  result.documents = std::move(rendered.documents);
  result.control_spellings = rendered.control_spellings;
  return result;
}

LineDocuments DocumentMaker::make(const JsonlFile& file, const JsonlLine& line) {
  return at_line(file, line, [&] { return make(line.text); });
}

RecordParser::Time DocumentMaker::time(const JsonlFile& file, const JsonlLine& line, const std::string& key) {
  return at_line(file, line, [&] { return parser_.parse_time(line.text, key); });
}

}  // namespace verne
