#include "verne/io/hdf5.hpp"

#include <hdf5.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <limits>
#include <type_traits>

#include "verne/base/checked.hpp"
#include "verne/base/error.hpp"
#include "verne/io/file.hpp"

namespace verne {
namespace {

static_assert(std::is_same_v<hid_t, std::int64_t>, "HDF5 identifiers are 64-bit since 1.10");

/// One call moves less than this: MPI-IO refuses 2 GiB and more.
constexpr std::int64_t kPieceBytes = std::int64_t{1} << 30;
constexpr std::int64_t kTextLimitBytes = std::int64_t{1} << 30;
constexpr std::array kAllTypes{Hdf5Type::u8,  Hdf5Type::u32,    Hdf5Type::u64,  Hdf5Type::i32,
                               Hdf5Type::i64, Hdf5Type::f16,    Hdf5Type::bf16, Hdf5Type::f32,
                               Hdf5Type::f64, Hdf5Type::f8_e4m3};

herr_t keep_innermost(unsigned depth, const H5E_error2_t* error, void* text) {
  if (depth == 0 && error->desc != nullptr) *static_cast<std::string*>(text) = error->desc;
  return 0;
}

/// The library's words for its last failure.
std::string library_message() {
  std::string text;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_innermost, &text);
  H5Eclear2(H5E_DEFAULT);
  return text.empty() ? "no message" : text;
}

/// Switches the library's own printing off; every way into the library passes here.
void quiet() {
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}

template <class Result>
Result check(Result result, const std::string& file, std::string_view what) {
  if (result < 0) throw_system_error("{}: HDF5 cannot {}: {}", file, what, library_message());
  return result;
}
/// As `check`, for what a given file should have held.
template <class Result>
Result check_user(Result result, const std::string& file, std::string_view what) {
  if (result < 0) throw_user_error("{}: cannot {}: {}", file, what, library_message());
  return result;
}

Hdf5Id owned(hid_t id, const std::string& file, std::string_view what) {
  return Hdf5Id(check(id, file, what));
}
Hdf5Id owned_user(hid_t id, const std::string& file, std::string_view what) {
  return Hdf5Id(check_user(id, file, what));
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

/// A value as h5py and we write it: one string of fixed or variable length.
template <class Read>
std::string text_of(const Hdf5Id& type, const std::string& file, const std::string& path, const Read& read) {
  if (H5Tget_class(type.get()) != H5T_STRING) throw_user_error("{}: {} is not a string", file, path);
  if (H5Tis_variable_str(type.get()) > 0) {
    char* value = nullptr;
    const Hdf5Id memory = variable_text_type();
    check_user(read(memory.get(), &value), file, "read " + path);
    std::string text = value == nullptr ? "" : value;
    H5free_memory(value);
    return text;
  }
  const std::size_t size = H5Tget_size(type.get());
  if (size > static_cast<std::size_t>(kTextLimitBytes))
    throw_user_error("{}: {} has {} bytes", file, path, size);
  std::string text(size, '\0');
  const Hdf5Id memory = text_type(size);
  check_user(read(memory.get(), text.data()), file, "read " + path);
  while (!text.empty() && text.back() == '\0') text.pop_back();
  return text;
}

/// Throws UserError unless every step of `path` is a link within the file: a foreign file must not lead
/// elsewhere.
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

Hdf5Id file_access() {
  quiet();
  Hdf5Id access(H5Pcreate(H5P_FILE_ACCESS));
  H5Pset_alignment(access.get(), 64 << 10, 4 << 10);
  H5Pset_fclose_degree(access.get(), H5F_CLOSE_STRONG);
  // Files appear whole, by renaming; locks would only fail on file systems that have none.
  H5Pset_file_locking(access.get(), 0, 1);
  return access;
}

Hdf5Id creation(hid_t kind) {
  Hdf5Id properties(H5Pcreate(kind));
  H5Pset_obj_track_times(properties.get(), 0);
  return properties;
}

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

Hdf5File Hdf5File::create(const std::filesystem::path& file, std::int64_t expected_bytes) {
  // Known before the library holds anything that it could not write.
  if (expected_bytes > 0) File::create(file).reserve(expected_bytes);
  const Hdf5Id access = file_access(), properties = creation(H5P_FILE_CREATE);
  return {owned(H5Fcreate(file.c_str(), H5F_ACC_TRUNC, properties.get(), access.get()), file.string(),
                "create it"),
          file, Use::create};
}

Hdf5File Hdf5File::open(const std::filesystem::path& file) {
  std::error_code error;
  const auto status = std::filesystem::status(file, error);
  if (!std::filesystem::exists(status)) throw_user_error("{}: there is no such file", file.string());
  if (!std::filesystem::is_regular_file(status)) {
    throw_user_error("{}: it is not a regular file", file.string());
  }
  File::open_read(file);  // says why where it cannot be read
  const Hdf5Id access = file_access();
  if (H5Fis_hdf5(file.c_str()) == 0) throw_user_error("{}: it is not an HDF5 file", file.string());
  return {owned_user(H5Fopen(file.c_str(), H5F_ACC_RDONLY, access.get()), file.string(),
                     "open it as an HDF5 file"),
          file, Use::read};
}

Hdf5File Hdf5File::open_shared(const std::filesystem::path& file, const HostGroup& group) {
  const Hdf5Id access = file_access();
  if (group.communicator() != nullptr) {
    check(H5Pset_fapl_mpio(access.get(), group.communicator(), MPI_INFO_NULL), file.string(), "use MPI-IO");
  }
  return {owned(H5Fopen(file.c_str(), H5F_ACC_RDWR, access.get()), file.string(), "open it for writing"),
          file, Use::share};
}

Hdf5File::~Hdf5File() {
  if (use_ != Use::create || id_.get() < 0) return;
  // An abandoned file. Closing writes what is buffered; where that fails (a full disk), HDF5 1.10 keeps a
  // half-closed file and crashes at its end. So what is left goes to memory instead.
  void* handle = nullptr;
  if (H5Fget_vfd_handle(id_.get(), H5P_DEFAULT, &handle) < 0 || handle == nullptr) return;
  const int spare = ::memfd_create("abandoned", MFD_CLOEXEC);
  if (spare < 0) return;
  ::dup2(spare, *static_cast<int*>(handle));
  ::close(spare);
}

void Hdf5File::close() {
  if (id_.get() < 0) return;
  check(H5Fflush(id_.get(), H5F_SCOPE_GLOBAL), path_.string(), "flush it");
  const Hdf5Id closing = std::move(id_);
  check(H5Fclose(closing.get()), path_.string(), "close it");
}

bool Hdf5File::contains(const std::string& path) const {
  if (path == "/") return true;
  for (std::size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
    const htri_t there = H5Lexists(id_.get(), path.substr(0, end).c_str(), H5P_DEFAULT);
    if (there < 0) H5Eclear2(H5E_DEFAULT);
    if (there <= 0) return false;
    if (end == std::string::npos) return true;
  }
}

std::vector<std::string> Hdf5File::list(const std::string& group) const {
  std::vector<std::string> names;
  if (!contains(group)) return names;
  if (group != "/") require_inner_links(id_, group, path_.string());
  const Hdf5Id id =
      owned_user(H5Gopen2(id_.get(), group.c_str(), H5P_DEFAULT), path_.string(), "open group " + group);
  hsize_t index = 0;
  const auto add = [](hid_t, const char* name, const H5L_info_t*, void* to) -> herr_t {
    static_cast<std::vector<std::string>*>(to)->emplace_back(name);
    return 0;
  };
  check_user(H5Literate(id.get(), H5_INDEX_NAME, H5_ITER_INC, &index, add, &names), path_.string(),
             "list " + group);
  std::sort(names.begin(), names.end());
  return names;
}

void Hdf5File::create_group(const std::string& path) {
  for (std::size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
    const std::string step = path.substr(0, end);
    if (!contains(step)) {
      const Hdf5Id properties = creation(H5P_GROUP_CREATE);
      owned(H5Gcreate2(id_.get(), step.c_str(), H5P_DEFAULT, properties.get(), H5P_DEFAULT), path_.string(),
            "create group " + step);
    }
    if (end == std::string::npos) return;
  }
}

namespace {

/// Creates the groups on the way to a dataset.
void create_parents(Hdf5File& file, const std::string& path) {
  const std::size_t slash = path.rfind('/');
  require(slash != std::string::npos, "dataset path {} is not absolute", path);
  if (slash > 0) file.create_group(path.substr(0, slash));
}

}  // namespace

Hdf5Dataset Hdf5File::create_dataset(const std::string& path, Hdf5Type type,
                                     std::span<const std::int64_t> extents) {
  create_parents(*this, path);
  const std::vector<hsize_t> sizes(extents.begin(), extents.end());
  const Hdf5Id space(sizes.empty() ? H5Screate(H5S_SCALAR)
                                   : H5Screate_simple(static_cast<int>(sizes.size()), sizes.data(), nullptr));
  const Hdf5Id properties = creation(H5P_DATASET_CREATE), element = library_type(type);
  H5Pset_layout(properties.get(), H5D_CONTIGUOUS);
  H5Pset_alloc_time(properties.get(), H5D_ALLOC_TIME_EARLY);
  H5Pset_fill_time(properties.get(), H5D_FILL_TIME_NEVER);
  return {owned(H5Dcreate2(id_.get(), path.c_str(), element.get(), space.get(), H5P_DEFAULT, properties.get(),
                           H5P_DEFAULT),
                path_.string(), "create dataset " + path),
          path, path_.string()};
}

Hdf5Dataset Hdf5File::dataset(const std::string& path) const {
  require_inner_links(id_, path, path_.string());
  return {owned_user(H5Dopen2(id_.get(), path.c_str(), H5P_DEFAULT), path_.string(), "open dataset " + path),
          path, path_.string()};
}

Hdf5Strings Hdf5File::create_strings(const std::string& path, std::int64_t count) {
  create_parents(*this, path);
  const auto size = static_cast<hsize_t>(count);
  const Hdf5Id space(H5Screate_simple(1, &size, nullptr)), properties = creation(H5P_DATASET_CREATE),
                                                           type = variable_text_type();
  return {owned(H5Dcreate2(id_.get(), path.c_str(), type.get(), space.get(), H5P_DEFAULT, properties.get(),
                           H5P_DEFAULT),
                path_.string(), "create dataset " + path),
          path, path_.string()};
}

Hdf5Strings Hdf5File::strings(const std::string& path) const {
  require_inner_links(id_, path, path_.string());
  return {owned_user(H5Dopen2(id_.get(), path.c_str(), H5P_DEFAULT), path_.string(), "open dataset " + path),
          path, path_.string()};
}

void Hdf5File::write_text(const std::string& path, std::string_view text) {
  create_parents(*this, path);
  const Hdf5Id space(H5Screate(H5S_SCALAR)), properties = creation(H5P_DATASET_CREATE),
                                             type = text_type(std::max<std::size_t>(text.size(), 1));
  const Hdf5Id id = owned(H5Dcreate2(id_.get(), path.c_str(), type.get(), space.get(), H5P_DEFAULT,
                                     properties.get(), H5P_DEFAULT),
                          path_.string(), "create dataset " + path);
  const std::string value = text.empty() ? std::string(1, '\0') : std::string(text);
  check(H5Dwrite(id.get(), type.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, value.data()), path_.string(),
        "write " + path);
}

std::string Hdf5File::read_text(const std::string& path) const {
  require_inner_links(id_, path, path_.string());
  const Hdf5Id id =
      owned_user(H5Dopen2(id_.get(), path.c_str(), H5P_DEFAULT), path_.string(), "open dataset " + path);
  const Hdf5Id space(H5Dget_space(id.get())), type(H5Dget_type(id.get()));
  if (H5Sget_simple_extent_npoints(space.get()) != 1)
    throw_user_error("{}: {} is not one string", path_.string(), path);
  return text_of(type, path_.string(), path, [&](hid_t memory, void* to) {
    return H5Dread(id.get(), memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, to);
  });
}

void Hdf5File::write_bytes(const std::string& path, std::string_view bytes) {
  const std::array extents{static_cast<std::int64_t>(bytes.size())};
  create_dataset(path, Hdf5Type::u8, extents).write(0, std::as_bytes(std::span(bytes)));
}

std::string Hdf5File::read_bytes(const std::string& path) const {
  const Hdf5Dataset data = dataset(path);
  std::error_code error;
  const auto file_size = static_cast<std::int64_t>(std::filesystem::file_size(path_, error));
  if (data.type() != Hdf5Type::u8 || data.extents().size() != 1 || data.count() > file_size) {
    throw_user_error("{}: {} is not a file's content", path_.string(), path);
  }
  std::string bytes(static_cast<std::size_t>(data.count()), '\0');
  data.read(0, std::as_writable_bytes(std::span(bytes)));
  return bytes;
}

namespace {

Hdf5Id open_object(const Hdf5Id& file, const std::string& object, const std::string& name) {
  return owned_user(H5Oopen(file.get(), object.c_str(), H5P_DEFAULT), name, "open " + object);
}

}  // namespace

void Hdf5File::write_attribute(const std::string& object, const std::string& name, std::string_view text) {
  const Hdf5Id owner = open_object(id_, object, path_.string()), space(H5Screate(H5S_SCALAR)),
               type = text_type(std::max<std::size_t>(text.size(), 1));
  const Hdf5Id id =
      owned(H5Acreate2(owner.get(), name.c_str(), type.get(), space.get(), H5P_DEFAULT, H5P_DEFAULT),
            path_.string(), "create attribute " + name);
  const std::string value = text.empty() ? std::string(1, '\0') : std::string(text);
  check(H5Awrite(id.get(), type.get(), value.data()), path_.string(), "write attribute " + name);
}

void Hdf5File::write_attribute(const std::string& object, const std::string& name, std::int64_t value) {
  const Hdf5Id owner = open_object(id_, object, path_.string()), space(H5Screate(H5S_SCALAR));
  const Hdf5Id id =
      owned(H5Acreate2(owner.get(), name.c_str(), H5T_STD_I64LE, space.get(), H5P_DEFAULT, H5P_DEFAULT),
            path_.string(), "create attribute " + name);
  check(H5Awrite(id.get(), H5T_NATIVE_INT64, &value), path_.string(), "write attribute " + name);
}

bool Hdf5File::has_attribute(const std::string& object, const std::string& name) const {
  return H5Aexists_by_name(id_.get(), object.c_str(), name.c_str(), H5P_DEFAULT) > 0;
}

std::vector<std::string> Hdf5File::list_attributes(const std::string& object) const {
  const Hdf5Id owner = open_object(id_, object, path_.string());
  std::vector<std::string> names;
  const auto add = [](hid_t, const char* name, const H5A_info_t*, void* to) -> herr_t {
    static_cast<std::vector<std::string>*>(to)->emplace_back(name);
    return 0;
  };
  hsize_t index = 0;
  check_user(H5Aiterate2(owner.get(), H5_INDEX_NAME, H5_ITER_INC, &index, add, &names), path_.string(),
             "list the attributes of " + object);
  return names;
}

namespace {

Hdf5Id open_attribute(const Hdf5Id& file, const std::string& object, const std::string& name,
                      const std::string& path) {
  if (H5Aexists_by_name(file.get(), object.c_str(), name.c_str(), H5P_DEFAULT) <= 0) {
    H5Eclear2(H5E_DEFAULT);
    throw_user_error("{}: {} lacks the attribute {}", path, object, name);
  }
  Hdf5Id id = owned_user(H5Aopen_by_name(file.get(), object.c_str(), name.c_str(), H5P_DEFAULT, H5P_DEFAULT),
                         path, "open attribute " + name);
  const Hdf5Id space(H5Aget_space(id.get()));
  if (H5Sget_simple_extent_npoints(space.get()) != 1)
    throw_user_error("{}: attribute {} is not one value", path, name);
  return id;
}

}  // namespace

std::string Hdf5File::text_attribute(const std::string& object, const std::string& name) const {
  const Hdf5Id id = open_attribute(id_, object, name, path_.string());
  const Hdf5Id type(H5Aget_type(id.get()));
  return text_of(type, path_.string(), "attribute " + name,
                 [&](hid_t memory, void* to) { return H5Aread(id.get(), memory, to); });
}

std::int64_t Hdf5File::integer_attribute(const std::string& object, const std::string& name) const {
  const Hdf5Id id = open_attribute(id_, object, name, path_.string());
  const Hdf5Id type(H5Aget_type(id.get()));
  if (H5Tget_class(type.get()) != H5T_INTEGER)
    throw_user_error("{}: attribute {} is not an integer", path_.string(), name);
  std::int64_t value = 0;
  check_user(H5Aread(id.get(), H5T_NATIVE_INT64, &value), path_.string(), "read attribute " + name);
  return value;
}

}  // namespace verne
