#pragma once
#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>

#include "verne/comm/host_group.hpp"
#include "verne/data/documents.hpp"
#include "verne/data/split.hpp"
#include "verne/io/json.hpp"
#include "verne/text/chat_template.hpp"

namespace verne {

/// What happened to the records of a run, counted; `sum` adds the counts of all ranks.
class PrepareCounts {
 public:
  void add_record(Part part, RecordForm form, std::int64_t control_spellings);
  void add_document(Part part, const Document& document);
  void add_empty_record() { ++at(kEmptyRecords); }

  /// Collective.
  void sum(const HostGroup& group);

  std::int64_t records(Part part) const { return at(kRecords + index(part)); }
  std::int64_t documents(Part part) const { return at(kDocuments + index(part)); }
  std::int64_t tokens(Part part) const { return at(kTokens + index(part)); }
  std::int64_t trained_tokens(Part part) const { return at(kTrained + index(part)); }
  std::int64_t records(RecordForm form) const { return at(kForms + static_cast<std::size_t>(form)); }
  std::int64_t empty_records() const { return at(kEmptyRecords); }

  /// {"records": ..., "documents": ..., "parts": ..., "lengths": ...}
  Json to_json() const;

 private:
  // Offsets of the counters; those by part have three.
  static constexpr std::size_t kRecords = 0, kDocuments = 3, kTokens = 6, kTrained = 9,
                               kUntrainedDocuments = 12;
  static constexpr std::size_t kEmptyRecords = 15, kControlSpellings = 16, kRecordsWithControls = 17;
  static constexpr std::size_t kForms = 18;      ///< by RecordForm
  static constexpr std::size_t kHistogram = 21;  ///< [2^i, 2^(i+1)) tokens
  static constexpr std::size_t kHistogramBins = 40;

  static std::size_t index(Part part) { return static_cast<std::size_t>(part); }
  std::int64_t& at(std::size_t i) { return counts_[i]; }
  std::int64_t at(std::size_t i) const { return counts_[i]; }

  std::array<std::int64_t, kHistogram + kHistogramBins> counts_{};
  std::int64_t shortest_ = std::int64_t{1} << 62, longest_ = 0;
};

inline constexpr const char* kCertificateName = "certificate.json";
/// The `fingerprint` of a folder's certificate, where it has a readable one.
std::optional<Json> read_certificate(const std::filesystem::path& folder);

}  // namespace verne
