#include "verne/io/hdf5.hpp"

#include <hdf5.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "hdf5_detail.hpp"
#include "hdf5_memory.hpp"
#include "verne/base/error.hpp"
#include "verne/io/file.hpp"

namespace verne {

using namespace hdf5_detail;

namespace {

constexpr std::int64_t kTextLimitBytes = std::int64_t{1} << 30;

/// Switches the library's own printing off; every way into the library passes here.
void quiet() {
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
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

Hdf5Id file_access() {
  quiet();
  Hdf5Id access(H5Pcreate(H5P_FILE_ACCESS));
  H5Pset_alignment(access.get(), 64 << 10, 4 << 10);
  H5Pset_fclose_degree(access.get(), H5F_CLOSE_STRONG);
  // Files appear whole, by renaming; locks would only fail on file systems that have none.
  H5Pset_file_locking(access.get(), 0, 1);
  return access;
}

}  // namespace

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

Hdf5File Hdf5File::create_in_memory(SparseImage& image, std::string_view name) {
  const Hdf5Id access = file_access(), properties = creation(H5P_FILE_CREATE);
  use_image(access, image);
  // Groups of the older format take a search through a sorted list for every name.
  check(H5Pset_libver_bounds(access.get(), H5F_LIBVER_V18, H5F_LIBVER_LATEST), std::string(name),
        "choose its format");
  // Metadata keeps together rather than in a page between every two tensors.
  check(H5Pset_meta_block_size(access.get(), 64 << 10), std::string(name), "choose its blocks");
  return {owned(H5Fcreate(std::string(name).c_str(), H5F_ACC_TRUNC, properties.get(), access.get()),
                std::string(name), "create it"),
          name, Use::memory};
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

std::int64_t Hdf5File::count(const std::string& group) const {
  if (!contains(group)) return 0;
  H5G_info_t info;
  check_user(H5Gget_info_by_name(id_.get(), group.c_str(), &info, H5P_DEFAULT), path_.string(),
             "look up group " + group);
  return static_cast<std::int64_t>(info.nlinks);
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

std::int64_t Hdf5File::create_text(const std::string& path, std::int64_t bytes) {
  create_parents(*this, path);
  const Hdf5Id space(H5Screate(H5S_SCALAR)), properties = creation(H5P_DATASET_CREATE),
                                             type = text_type(static_cast<std::size_t>(bytes));
  H5Pset_alloc_time(properties.get(), H5D_ALLOC_TIME_EARLY);
  H5Pset_fill_time(properties.get(), H5D_FILL_TIME_NEVER);
  const Hdf5Id id = owned(H5Dcreate2(id_.get(), path.c_str(), type.get(), space.get(), H5P_DEFAULT,
                                     properties.get(), H5P_DEFAULT),
                          path_.string(), "create dataset " + path);
  return static_cast<std::int64_t>(H5Dget_offset(id.get()));
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
