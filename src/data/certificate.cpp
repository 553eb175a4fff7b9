#include "verne/data/certificate.hpp"

#include <algorithm>
#include <bit>
#include <system_error>

#include "verne/base/error.hpp"

namespace verne {
namespace {

double share(std::int64_t part, std::int64_t whole) {
  return whole == 0 ? 0 : static_cast<double>(part) / static_cast<double>(whole);
}

}  // namespace

void PrepareCounts::add_record(Part part, RecordForm form, std::int64_t control_spellings) {
  ++at(kRecords + index(part));
  ++at(kForms + static_cast<std::size_t>(form));
  at(kControlSpellings) += control_spellings;
  if (control_spellings > 0) ++at(kRecordsWithControls);
}

void PrepareCounts::add_document(Part part, const Document& document) {
  const auto length = static_cast<std::int64_t>(document.tokens.size());
  const auto trained = std::count(document.loss_mask.begin(), document.loss_mask.end(), 1);
  ++at(kDocuments + index(part));
  at(kTokens + index(part)) += length;
  at(kTrained + index(part)) += trained;
  if (trained == 0) ++at(kUntrainedDocuments + index(part));
  const auto bin = static_cast<std::size_t>(std::bit_width(static_cast<std::uint64_t>(length)) - 1);
  ++at(kHistogram + std::min(bin, kHistogramBins - 1));
  shortest_ = std::min(shortest_, length);
  longest_ = std::max(longest_, length);
}

void PrepareCounts::sum(const HostGroup& group) {
  group.sum(std::span(counts_));
  shortest_ = group.min(shortest_);
  longest_ = group.max(longest_);
}

Json PrepareCounts::to_json() const {
  std::int64_t all_records = 0, all_documents = 0, all_tokens = 0;
  Json parts = Json::object();
  for (const Part part : kParts) {
    all_records += records(part);
    all_documents += documents(part);
    all_tokens += tokens(part);
    parts[std::string(part_name(part))] = {
        {"file", fmt::format("{}.h5", part_name(part))},
        {"records", records(part)},
        {"documents", documents(part)},
        {"tokens", tokens(part)},
        {"trained_tokens", trained_tokens(part)},
        {"trained_share", share(trained_tokens(part), tokens(part))},
        {"documents_without_trained_token", at(kUntrainedDocuments + index(part))},
    };
  }
  Json histogram = Json::array();
  for (std::size_t bin = 0; bin < kHistogramBins; ++bin) {
    if (at(kHistogram + bin) == 0) continue;
    histogram.push_back({{"from", std::int64_t{1} << bin},
                         {"to", (std::int64_t{2} << bin) - 1},
                         {"documents", at(kHistogram + bin)}});
  }
  Json result = Json::object();
  result["records"] = {{"read", all_records + empty_records()},
                       {"kept", all_records},
                       {"dropped", {{"without_tokens", empty_records()}}},
                       {"forms",
                        {{"templated", records(RecordForm::templated)},
                         {"text", records(RecordForm::text)},
                         {"tokenized", records(RecordForm::tokenized)}}}};
  result["documents"] = all_documents;
  result["control_tokens_spelled"] = {{"occurrences", at(kControlSpellings)},
                                      {"records", at(kRecordsWithControls)}};
  result["parts"] = std::move(parts);
  result["lengths"] = {{"shortest", all_documents == 0 ? 0 : shortest_},
                       {"mean", share(all_tokens, all_documents)},
                       {"longest", longest_},
                       {"histogram", std::move(histogram)}};
  return result;
}

std::optional<Json> read_certificate(const std::filesystem::path& folder) {
  std::error_code ignored;
  if (!std::filesystem::exists(folder / kCertificateName, ignored)) return std::nullopt;
  try {
    return read_json_file(folder / kCertificateName);
  } catch (const UserError&) {
    return std::nullopt;  // torn or foreign: as good as none
  }
}

}  // namespace verne
