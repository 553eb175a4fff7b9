#include <hdf5.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <string_view>
#include <type_traits>

#include "hdf5_detail.hpp"
#include "verne/base/checked.hpp"
#include "verne/base/error.hpp"
#include "verne/io/hdf5.hpp"

namespace verne {
namespace hdf5_detail {
namespace {

static_assert(std::is_same_v<hid_t, std::int64_t>, "HDF5 identifiers are 64-bit since 1.10");

herr_t keep_innermost(unsigned depth, const H5E_error2_t* error, void* text) {
  if (depth == 0 && error->desc != nullptr) *static_cast<std::string*>(text) = error->desc;
  return 0;
}

/// A float type of fewer bits: sign, exponent and mantissa are at bits [sign], [mantissa, sign) and [0,
/// mantissa).
Hdf5Id small_float(std::size_t bytes, std::size_t mantissa_bits, std::size_t bias) {
  const std::size_t sign = bytes * 8 - 1;
  Hdf5Id type(H5Tcopy(H5T_IEEE_F32LE));
  H5Tset_fields(type.get(), sign, mantissa_bits, sign - mantissa_bits, 0, mantissa_bits);
  H5Tset_size(type.get(), bytes);
  H5Tset_ebias(type.get(), bias);
  return type;
}

/// The errno of a system call that failed within the library, from its words ("..., errno = 27, ..."); 0:
/// none.
int error_number_in(std::string_view text) {
  constexpr std::string_view kBefore = "errno = ";
  const std::size_t at = text.find(kBefore);
  int number = 0;
  if (at != std::string_view::npos)
    std::from_chars(text.data() + at + kBefore.size(), text.data() + text.size(), number);
  return number;
}

}  // namespace

std::string library_message() {
  std::string text;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_innermost, &text);
  H5Eclear2(H5E_DEFAULT);
  if (const int number = error_number_in(text); is_disk_full(number)) return reason_of(number);
  return text.empty() ? "no message" : text;
}

Hdf5Id owned(hid_t id, const std::string& file, std::string_view what) {
  return Hdf5Id(check(id, file, what));
}
Hdf5Id owned_user(hid_t id, const std::string& file, std::string_view what) {
  return Hdf5Id(check_user(id, file, what));
}

Hdf5Id creation(hid_t kind) {
  Hdf5Id properties(H5Pcreate(kind));
  H5Pset_obj_track_times(properties.get(), 0);
  return properties;
}

void require_inner_links(const Hdf5Id& file, const std::string& path, const std::string& name) {
  for (std::size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
    const std::string step = path.substr(0, end);
    H5L_info_t info;
    const htri_t there = H5Lexists(file.get(), step.c_str(), H5P_DEFAULT);
    if (there < 0) throw_user_error("{}: cannot look up {}: {}", name, step, library_message());
    if (there == 0) throw_user_error("{}: there is no {} in it", name, path);
    check_user(H5Lget_info(file.get(), step.c_str(), &info, H5P_DEFAULT), name, "look up " + step);
    if (info.type != H5L_TYPE_HARD) throw_user_error("{}: {} is a link to elsewhere", name, step);
    if (end == std::string::npos) return;
  }
}

Hdf5Id library_type(Hdf5Type type) {
  switch (type) {
    case Hdf5Type::u8:
      return Hdf5Id(H5Tcopy(H5T_STD_U8LE));
    case Hdf5Type::u32:
      return Hdf5Id(H5Tcopy(H5T_STD_U32LE));
    case Hdf5Type::u64:
      return Hdf5Id(H5Tcopy(H5T_STD_U64LE));
    case Hdf5Type::i32:
      return Hdf5Id(H5Tcopy(H5T_STD_I32LE));
    case Hdf5Type::i64:
      return Hdf5Id(H5Tcopy(H5T_STD_I64LE));
    case Hdf5Type::f16:
      return small_float(2, 10, 15);
    case Hdf5Type::bf16:
      return small_float(2, 7, 127);
    case Hdf5Type::f32:
      return Hdf5Id(H5Tcopy(H5T_IEEE_F32LE));
    case Hdf5Type::f64:
      return Hdf5Id(H5Tcopy(H5T_IEEE_F64LE));
    case Hdf5Type::f8_e4m3:
      return small_float(1, 3, 7);
  }
  throw InternalError("unknown HDF5 type");
}

Hdf5Id text_type(std::size_t size) {
  Hdf5Id type(H5Tcopy(H5T_C_S1));
  H5Tset_size(type.get(), size);
  H5Tset_cset(type.get(), H5T_CSET_UTF8);
  H5Tset_strpad(type.get(), H5T_STR_NULLPAD);
  return type;
}
Hdf5Id variable_text_type() {
  Hdf5Id type(H5Tcopy(H5T_C_S1));
  H5Tset_size(type.get(), H5T_VARIABLE);
  H5Tset_cset(type.get(), H5T_CSET_UTF8);
  return type;
}

std::vector<hsize_t> extents_of(const Hdf5Id& dataspace, const std::string& file) {
  const int rank = check_user(H5Sget_simple_extent_ndims(dataspace.get()), file, "read a dataspace");
  std::vector<hsize_t> extents(static_cast<std::size_t>(rank));
  check_user(H5Sget_simple_extent_dims(dataspace.get(), extents.data(), nullptr), file, "read a dataspace");
  return extents;
}

}  // namespace hdf5_detail

using namespace hdf5_detail;

namespace {

/// What one call moves.
constexpr std::int64_t kPieceBytes = std::int64_t{1} << 30;
constexpr std::array kAllTypes{Hdf5Type::u8,  Hdf5Type::u32,    Hdf5Type::u64,  Hdf5Type::i32,
                               Hdf5Type::i64, Hdf5Type::f16,    Hdf5Type::bf16, Hdf5Type::f32,
                               Hdf5Type::f64, Hdf5Type::f8_e4m3};

}  // namespace

std::int64_t size_bytes(Hdf5Type type) {
  switch (type) {
    case Hdf5Type::u8:
    case Hdf5Type::f8_e4m3:
      return 1;
    case Hdf5Type::f16:
    case Hdf5Type::bf16:
      return 2;
    case Hdf5Type::u32:
    case Hdf5Type::i32:
    case Hdf5Type::f32:
      return 4;
    case Hdf5Type::u64:
    case Hdf5Type::i64:
    case Hdf5Type::f64:
      return 8;
  }
  throw InternalError("unknown HDF5 type");
}

std::string_view name(Hdf5Type type) {
  return type == Hdf5Type::u64 ? "u64" : name(tensor_type(type, ""));
}

Hdf5Type hdf5_type(DType type) {
  switch (type) {
    case DType::f32:
      return Hdf5Type::f32;
    case DType::bf16:
      return Hdf5Type::bf16;
    case DType::f16:
      return Hdf5Type::f16;
    case DType::f64:
      return Hdf5Type::f64;
    case DType::i32:
      return Hdf5Type::i32;
    case DType::i64:
      return Hdf5Type::i64;
    case DType::u8:
      return Hdf5Type::u8;
    case DType::u32:
      return Hdf5Type::u32;
    case DType::f8_e4m3:
      return Hdf5Type::f8_e4m3;
  }
  throw InternalError("unknown tensor type");
}

DType tensor_type(Hdf5Type type, std::string_view where) {
  switch (type) {
    case Hdf5Type::f32:
      return DType::f32;
    case Hdf5Type::bf16:
      return DType::bf16;
    case Hdf5Type::f16:
      return DType::f16;
    case Hdf5Type::f64:
      return DType::f64;
    case Hdf5Type::i32:
      return DType::i32;
    case Hdf5Type::i64:
      return DType::i64;
    case Hdf5Type::u8:
      return DType::u8;
    case Hdf5Type::u32:
      return DType::u32;
    case Hdf5Type::f8_e4m3:
      return DType::f8_e4m3;
    case Hdf5Type::u64:
      break;
  }
  throw_user_error("{} holds 64-bit unsigned integers, which no tensor does", where);
}

Hdf5Id::~Hdf5Id() {
  // Closing an identifier whose file is closed already fails harmlessly.
  if (id_ >= 0 && H5Iis_valid(id_) > 0) {
    if (H5Iget_type(id_) == H5I_FILE) {
      H5Fclose(id_);
    } else {
      H5Idec_ref(id_);
    }
  }
}
Hdf5Id& Hdf5Id::operator=(Hdf5Id&& other) noexcept {
  std::swap(id_, other.id_);
  return *this;
}

Hdf5Dataset::Hdf5Dataset(Hdf5Id id, std::string path, std::string file)
    : id_(std::move(id)), path_(std::move(path)), file_(std::move(file)) {
  const Hdf5Id type(H5Dget_type(id_.get()));
  const auto found = std::find_if(kAllTypes.begin(), kAllTypes.end(), [&](Hdf5Type candidate) {
    return H5Tequal(type.get(), library_type(candidate).get()) > 0;
  });
  if (found == kAllTypes.end())
    throw_user_error("{}: {} has an element type that is not supported", file_, path_);
  type_ = *found;
  const Hdf5Id space(H5Dget_space(id_.get()));
  if (H5Sget_simple_extent_type(space.get()) == H5S_NULL) throw_user_error("{}: {} is empty", file_, path_);
  std::int64_t bytes = size_bytes(type_);
  for (const hsize_t extent : extents_of(space, file_)) {
    const auto product =
        extent > static_cast<hsize_t>(std::numeric_limits<std::int64_t>::max())
            ? std::nullopt
            : checked_multiply(std::max<std::int64_t>(bytes, 1), static_cast<std::int64_t>(extent));
    if (!product) throw_user_error("{}: {} is too large", file_, path_);
    bytes = extent == 0 ? 0 : bytes * static_cast<std::int64_t>(extent);
    extents_.push_back(static_cast<std::int64_t>(extent));
  }
}

std::int64_t Hdf5Dataset::count() const {
  std::int64_t count = 1;
  for (const std::int64_t extent : extents_) count *= extent;
  return count;
}

std::int64_t Hdf5Dataset::file_offset() const {
  const Hdf5Id properties(H5Dget_create_plist(id_.get()));
  if (H5Pget_layout(properties.get()) != H5D_CONTIGUOUS || H5Pget_external_count(properties.get()) != 0)
    return -1;
  if (count() == 0) return -1;
  const haddr_t offset = H5Dget_offset(id_.get());
  if (offset == HADDR_UNDEF || offset > static_cast<haddr_t>(std::numeric_limits<std::int64_t>::max()))
    return -1;
  return static_cast<std::int64_t>(offset);
}

template <class Bytes, class Call>
void Hdf5Dataset::transfer(std::int64_t first, Bytes data, const Call& call) const {
  const std::int64_t size = size_bytes(type_);
  std::int64_t left = static_cast<std::int64_t>(data.size()) / size;
  require(left * size == static_cast<std::int64_t>(data.size()), "{}: {} bytes are not whole elements", path_,
          data.size());
  require(first >= 0 && left >= 0 && first <= count() - left, "{}: elements [{}, +{}) of {}", path_, first,
          left, count());
  const Hdf5Id type = library_type(type_);
  const Hdf5Id space(H5Dget_space(id_.get()));
  const std::size_t rank = extents_.size();
  std::int64_t position = first;
  std::size_t done_bytes = 0;
  // A run of row-major elements is a few boxes: ragged ends and whole rows between.
  while (left > 0) {
    std::vector<hsize_t> start(rank), box(rank, 1);
    std::int64_t row = 1, taken = 1, rest = position;
    for (std::size_t axis = rank; axis-- > 0; rest /= extents_[axis]) {
      start[axis] = static_cast<hsize_t>(rest % extents_[axis]);
    }
    bool inner_whole = true;
    for (std::size_t axis = rank; axis-- > 0 && inner_whole; row *= extents_[axis]) {
      const std::int64_t fits = std::min(left, std::max<std::int64_t>(kPieceBytes / size, 1)) / row;
      const std::int64_t n = std::min(extents_[axis] - static_cast<std::int64_t>(start[axis]), fits);
      if (n < 1) break;
      box[axis] = static_cast<hsize_t>(n);
      taken = n * row;
      inner_whole = n == extents_[axis];
    }
    if (rank > 0) {
      check(H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, start.data(), nullptr, box.data(), nullptr),
            file_, "select a part of " + path_);
    }
    const auto memory_count = static_cast<hsize_t>(taken);
    const Hdf5Id memory(H5Screate_simple(1, &memory_count, nullptr));
    call(id_.get(), type.get(), memory.get(), space.get(), data.data() + done_bytes);
    position += taken;
    left -= taken;
    done_bytes += static_cast<std::size_t>(taken * size);
  }
}

void Hdf5Dataset::write(std::int64_t first, std::span<const std::byte> data) const {
  transfer(first, data, [&](hid_t id, hid_t type, hid_t memory, hid_t space, const std::byte* from) {
    check(H5Dwrite(id, type, memory, space, H5P_DEFAULT, from), file_, "write " + path_);
  });
}
void Hdf5Dataset::read(std::int64_t first, std::span<std::byte> data) const {
  transfer(first, data, [&](hid_t id, hid_t type, hid_t memory, hid_t space, std::byte* to) {
    check_user(H5Dread(id, type, memory, space, H5P_DEFAULT, to), file_, "read " + path_);
  });
}

Hdf5Strings::Hdf5Strings(Hdf5Id id, std::string path, std::string file)
    : id_(std::move(id)), path_(std::move(path)), file_(std::move(file)) {
  const Hdf5Id type(H5Dget_type(id_.get()));
  if (H5Tget_class(type.get()) != H5T_STRING || H5Tis_variable_str(type.get()) <= 0) {
    throw_user_error("{}: {} does not hold strings of variable length", file_, path_);
  }
  const Hdf5Id space(H5Dget_space(id_.get()));
  const std::vector<hsize_t> extents = extents_of(space, file_);
  if (extents.size() != 1 || extents[0] > static_cast<hsize_t>(std::numeric_limits<std::int64_t>::max())) {
    throw_user_error("{}: {} is not a list of strings", file_, path_);
  }
  count_ = static_cast<std::int64_t>(extents[0]);
}

void Hdf5Strings::write(std::int64_t first, std::span<const std::string> values) const {
  if (values.empty()) return;
  std::vector<const char*> pointers;
  pointers.reserve(values.size());
  for (const std::string& value : values) pointers.push_back(value.c_str());
  const auto start = static_cast<hsize_t>(first), count = static_cast<hsize_t>(values.size());
  const Hdf5Id type = variable_text_type(), space(H5Dget_space(id_.get())),
               memory(H5Screate_simple(1, &count, nullptr));
  check(H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, &start, nullptr, &count, nullptr), file_,
        "select " + path_);
  check(H5Dwrite(id_.get(), type.get(), memory.get(), space.get(), H5P_DEFAULT, pointers.data()), file_,
        "write " + path_);
}

std::vector<std::string> Hdf5Strings::read(std::int64_t first, std::int64_t n) const {
  require(first >= 0 && n >= 0 && first <= count_ - n, "{}: strings [{}, +{}) of {}", path_, first, n,
          count_);
  std::vector<std::string> values;
  if (n == 0) return values;
  const auto start = static_cast<hsize_t>(first), count = static_cast<hsize_t>(n);
  const Hdf5Id type = variable_text_type(), space(H5Dget_space(id_.get())),
               memory(H5Screate_simple(1, &count, nullptr));
  check(H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, &start, nullptr, &count, nullptr), file_,
        "select " + path_);
  std::vector<char*> pointers(static_cast<std::size_t>(n), nullptr);
  const herr_t status =
      H5Dread(id_.get(), type.get(), memory.get(), space.get(), H5P_DEFAULT, pointers.data());
  if (status >= 0) {
    for (const char* pointer : pointers) values.emplace_back(pointer == nullptr ? "" : pointer);
    H5Dvlen_reclaim(type.get(), memory.get(), H5P_DEFAULT, pointers.data());
  }
  check_user(status, file_, "read " + path_);
  return values;
}

}  // namespace verne
