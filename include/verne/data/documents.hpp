#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "verne/data/record.hpp"
#include "verne/io/jsonl.hpp"
#include "verne/text/chat_template.hpp"

namespace verne {

/// How the documents of a record came about.
enum class RecordForm {
  templated,  ///< rendered by the template
  text,       ///< {"text"}, which no template touches
  tokenized   ///< {"tokens"}
};

/// The documents of one JSONL line.
struct LineDocuments {
  RecordForm form = RecordForm::tokenized;
  std::vector<Document> documents;
  std::string metadata;  ///< a JSON object
  std::int64_t control_spellings = 0;
};

/// From JSONL lines to tokenized documents. Not thread-safe; make one a thread.
class DocumentMaker {
 public:
  /// Without a tokenizer only tokenized records are accepted. Where `record.vocab_size` is absent, the
  /// tokenizer's counts.
  DocumentMaker(const std::optional<Tokenizer>& tokenizer, const RenderOptions& render, RecordOptions record);

  /// UserErrors name the field alone.
  LineDocuments make(std::string_view line);
  /// UserErrors name file, line and field.
  LineDocuments make(const JsonlFile& file, const JsonlLine& line);
  /// As RecordParser::parse_time; UserErrors name file, line and field.
  RecordParser::Time time(const JsonlFile& file, const JsonlLine& line, const std::string& key);

 private:
  RecordParser parser_;
  std::optional<Renderer> renderer_;
};

}  // namespace verne
