#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "verne/io/file.hpp"
#include "verne/io/tensor_part.hpp"

namespace verne {

/// The safetensors container (huggingface/safetensors): the length of the header as a little-endian u64, the
/// header (JSON: name → dtype, shape, data_offsets), then the data.
struct SafetensorsEntry {
  std::string name;
  std::string dtype;  ///< as spelled in the header: one of the format's own words
  std::vector<std::int64_t> shape;
  std::int64_t begin = 0, end = 0;  ///< bytes in the file
};

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;  ///< ordered by `begin`
  std::map<std::string, std::string> metadata;
  std::int64_t data_begin = 0;  ///< byte of the file where the data starts
};

/// Bytes of the header, its length field included. `prefix` is the file's first 8 bytes. UserError naming
/// `origin` where the header does not fit the file or is longer than the format allows (100,000,000 bytes).
std::int64_t safetensors_header_bytes(std::span<const std::byte> prefix, std::int64_t file_bytes,
                                      const std::string& origin);
/// Reads the header, given with its length field, of a file of `file_bytes`, and checks every rule of the
/// format: valid JSON of that structure, known dtypes, no name twice, shape and dtype agreeing with the
/// offsets, data without hole or overlap up to the file's end. UserError naming `origin`, tensor, what was
/// found and what was expected.
SafetensorsHeader parse_safetensors_header(std::string_view header, std::int64_t file_bytes,
                                           const std::string& origin);

/// The format's word for a dtype and back; no value for a word that DType does not have.
std::string_view safetensors_dtype(DType type);
std::optional<DType> dtype_from_safetensors(std::string_view word);

/// The header of a file with its length field, as it stands. UserError where it is none.
std::string read_safetensors_header(const std::filesystem::path& path);

/// One safetensors file, read piecewise.
class SafetensorsFile final : public TensorSource {
 public:
  /// Opens and validates. UserError naming the file and the rule that it breaks.
  explicit SafetensorsFile(const std::filesystem::path& path);
  /// A file of `file_bytes` whose header is known: it is validated, and the file is opened where it is first
  /// read.
  SafetensorsFile(const std::filesystem::path& path, std::string_view header, std::int64_t file_bytes);

  const std::vector<TensorInfo>& tensors() const override { return tensors_; }
  const std::vector<UnsupportedTensor>& unsupported() const override { return unsupported_; }
  void read(const TensorInfo& tensor, std::int64_t offset, std::span<std::byte> to) const override;
  void will_read_block(const TensorInfo& tensor, std::int64_t block) const override;
  std::string origin() const override { return path_.string(); }

  const std::filesystem::path& path() const { return path_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

 private:
  /// Opened by the first thread that needs it.
  struct Opened {
    std::once_flag once;
    File file;
  };
  const File& file() const;
  std::filesystem::path path_;
  std::unique_ptr<Opened> opened_;
  std::vector<TensorInfo> tensors_;
  std::vector<UnsupportedTensor> unsupported_;
  std::map<std::string, std::string> metadata_;
  std::map<std::string, std::int64_t, std::less<>> begin_;
};

/// Where everything goes in a file of these tensors: widest dtype first, then by name, as the reference
/// writer orders them; the header padded to a multiple of 8, so that each tensor is aligned to its element.
struct SafetensorsLayout {
  std::string header;                                      ///< with its length field
  std::map<std::string, std::int64_t, std::less<>> begin;  ///< byte of the file where each tensor starts
  std::int64_t file_bytes = 0;
};
SafetensorsLayout layout_safetensors(std::vector<TensorInfo> tensors);

/// Writes one file: the header at once and the whole size reserved, then pieces in any order. The path is
/// used as it is; publish through AtomicFile or AtomicDirectory.
class SafetensorsWriter {
 public:
  /// Creates the file.
  SafetensorsWriter(const std::filesystem::path& path, const std::vector<TensorInfo>& tensors);
  void write(const TensorInfo& tensor, std::int64_t offset, std::span<const std::byte> bytes);
  void sync() const { file_.sync(); }

 private:
  SafetensorsLayout layout_;
  File file_;
};

}  // namespace verne
