#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "verne/io/sparse_image.hpp"
#include "verne/io/tensor_part.hpp"
#include "verne/tensor/tensor.hpp"

namespace verne {

// A thin owning layer over the HDF5 C library. The library is not thread-safe: all calls come from one
// thread. Errors of the library become SystemError with HDF5's own words (nothing is printed); a file that
// was given and is not HDF5, or lacks what it must have, is a UserError. Attributes and datasets are
// little-endian on disk.

/// Element types of datasets: those of tensors, and u64. bf16 and f8_e4m3 are HDF5 floating-point types of
/// two and one bytes, which readers that do not know them widen (h5py shows bf16 as float32).
enum class Hdf5Type : std::uint8_t { u8, u32, u64, i32, i64, f16, bf16, f32, f64, f8_e4m3 };
std::int64_t size_bytes(Hdf5Type type);
std::string_view name(Hdf5Type type);
Hdf5Type hdf5_type(DType type);
/// Throws UserError naming `where` for u64, which no tensor has.
DType tensor_type(Hdf5Type type, std::string_view where);

/// Owns one identifier of the library, whichever its kind.
class Hdf5Id {
 public:
  Hdf5Id() = default;
  explicit Hdf5Id(std::int64_t id) : id_(id) {}
  ~Hdf5Id();
  Hdf5Id(Hdf5Id&& other) noexcept : id_(std::exchange(other.id_, -1)) {}
  Hdf5Id& operator=(Hdf5Id&& other) noexcept;
  std::int64_t get() const { return id_; }

 private:
  std::int64_t id_ = -1;
};

/// An array of a file. Extents are any number of dimensions, slowest first; none for a scalar.
class Hdf5Dataset {
 public:
  const std::string& path() const { return path_; }
  Hdf5Type type() const { return type_; }
  const std::vector<std::int64_t>& extents() const { return extents_; }
  std::int64_t count() const;
  std::int64_t bytes() const { return count() * size_bytes(type_); }
  /// Byte offset in the file of contiguous data; -1 where there is none (no elements, or another storage
  /// layout).
  std::int64_t file_offset() const;

  /// Elements [first, first + count) in row-major order, as bytes.
  void write(std::int64_t first, std::span<const std::byte> data) const;
  void read(std::int64_t first, std::span<std::byte> data) const;

 private:
  friend class Hdf5File;
  Hdf5Dataset(Hdf5Id id, std::string path, std::string file);
  template <class Bytes, class Call>
  void transfer(std::int64_t first, Bytes data, const Call& call) const;
  Hdf5Id id_;
  std::string path_, file_;
  Hdf5Type type_ = Hdf5Type::u8;
  std::vector<std::int64_t> extents_;
};

/// A one-dimensional array of UTF-8 strings of any lengths.
class Hdf5Strings {
 public:
  std::int64_t count() const { return count_; }
  void write(std::int64_t first, std::span<const std::string> values) const;
  /// Throws UserError where a string is longer than `limit_bytes`.
  std::vector<std::string> read(std::int64_t first, std::int64_t count) const;

 private:
  friend class Hdf5File;
  Hdf5Strings(Hdf5Id id, std::string path, std::string file);
  Hdf5Id id_;
  std::string path_, file_;
  std::int64_t count_ = 0;
};

/// A tensor and where its bytes begin in a file.
struct StoredTensor {
  TensorInfo info;
  std::int64_t offset = 0;  ///< 0 where it has no elements
};

class Hdf5File {
 public:
  /// Creates (replaces) `file`. Object times are not stored: equal content,
  /// equal bytes. First makes sure that the disk has room for `expected_bytes`. What is not closed by `close`
  /// is abandoned.
  static Hdf5File create(const std::filesystem::path& file, std::int64_t expected_bytes = 0);
  /// Creates a file in `image`, which must outlive it: what is written there, and the size that the file will
  /// have. Groups may hold any number of objects. `name` is for messages.
  static Hdf5File create_in_memory(SparseImage& image, std::string_view name);
  /// Opens for reading. Throws UserError where it is missing, truncated or not HDF5.
  static Hdf5File open(const std::filesystem::path& file);
  ~Hdf5File();
  Hdf5File(Hdf5File&&) noexcept = default;
  Hdf5File& operator=(Hdf5File&&) noexcept = default;

  const std::filesystem::path& path() const { return path_; }
  /// Closes; throws SystemError where what was buffered cannot be written. The destructor closes silently.
  void close();

  bool contains(const std::string& path) const;
  /// Names in a group, in byte order. Empty where there is no such group.
  std::vector<std::string> list(const std::string& group) const;
  /// How many names that is, without looking at them.
  std::int64_t count(const std::string& group) const;

  void create_group(const std::string& path);
  /// Contiguous, allocated at once, never filled, aligned to 4 KiB where 64 KiB or larger; groups on the way
  /// are made.
  Hdf5Dataset create_dataset(const std::string& path, Hdf5Type type, std::span<const std::int64_t> extents);
  Hdf5Dataset dataset(const std::string& path) const;

  /// The tensors of a group as create_dataset makes them, all at once; the group is new. Byte offset of each
  /// in the file, 0 where it has no elements.
  std::vector<std::int64_t> create_tensors(const std::string& group, std::span<const TensorInfo> tensors);
  /// The datasets of a group in byte order of their names; none where there is no such group. UserError for
  /// one that no tensor can be, or that is not stored in one piece.
  std::vector<StoredTensor> tensors(const std::string& group) const;
  Hdf5Strings create_strings(const std::string& path, std::int64_t count);
  Hdf5Strings strings(const std::string& path) const;

  /// One string as a scalar dataset of fixed length.
  void write_text(const std::string& path, std::string_view text);
  std::string read_text(const std::string& path) const;
  /// Room for one string of up to `bytes`, which is to be written at the offset in the file that is returned,
  /// zeros behind it.
  std::int64_t create_text(const std::string& path, std::int64_t bytes);
  /// A file's content as u8.
  void write_bytes(const std::string& path, std::string_view bytes);
  std::string read_bytes(const std::string& path) const;

  /// Attributes of an object ("/" for the file's own).
  void write_attribute(const std::string& object, const std::string& name, std::string_view text);
  void write_attribute(const std::string& object, const std::string& name, std::int64_t value);
  bool has_attribute(const std::string& object, const std::string& name) const;
  std::vector<std::string> list_attributes(const std::string& object) const;
  std::string text_attribute(const std::string& object, const std::string& name) const;
  std::int64_t integer_attribute(const std::string& object, const std::string& name) const;

 private:
  enum class Use { read, create, memory };
  Hdf5File(Hdf5Id id, std::filesystem::path path, Use use)
      : id_(std::move(id)), path_(std::move(path)), use_(use) {}
  Hdf5Id id_;
  std::filesystem::path path_;
  Use use_;
};

}  // namespace verne
