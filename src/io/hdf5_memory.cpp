#include "hdf5_memory.hpp"

#include <hdf5.h>
#if __has_include(<H5FDdevelop.h>)
#include <H5FDdevelop.h>
#endif

#include <limits>

#include "hdf5_detail.hpp"

namespace verne::hdf5_detail {
namespace {

/// A driver of the library whose files are sparse images: its own in-memory driver holds every byte up to the
/// last one, and a checkpoint's last is behind terabytes of tensors. What it writes cannot fail for want of a
/// disk, so a file can always be closed.
struct ImageFile {
  H5FD_t common{};  // first, as the library wants it
  SparseImage* image = nullptr;
  haddr_t end_of_allocation = 0;
};

/// What a property list holds; the library copies its bytes.
struct Settings {
  SparseImage* image;
};

ImageFile* own(H5FD_t* file) {
  return reinterpret_cast<ImageFile*>(file);
}
const ImageFile* own(const H5FD_t* file) {
  return reinterpret_cast<const ImageFile*>(file);
}

H5FD_t* open_image(const char*, unsigned, hid_t access, haddr_t) {
  const auto* settings = static_cast<const Settings*>(H5Pget_driver_info(access));
  if (settings == nullptr) return nullptr;
  auto* file = new (std::nothrow) ImageFile;
  if (file == nullptr) return nullptr;
  file->image = settings->image;
  return &file->common;
}

herr_t close_image(H5FD_t* file) {
  delete own(file);
  return 0;
}

herr_t query(const H5FD_t*, unsigned long* flags) {
  *flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA | H5FD_FEAT_DATA_SIEVE |
           H5FD_FEAT_AGGREGATE_SMALLDATA;
  return 0;
}

haddr_t end_of_allocation(const H5FD_t* file, H5FD_mem_t) {
  return own(file)->end_of_allocation;
}
herr_t set_end_of_allocation(H5FD_t* file, H5FD_mem_t, haddr_t end) {
  own(file)->end_of_allocation = end;
  return 0;
}
haddr_t end_of_file(const H5FD_t* file, H5FD_mem_t) {
  return static_cast<haddr_t>(own(file)->image->size());
}

/// Runs what may throw under a C library.
template <class Work>
herr_t guarded(const Work& work) {
  try {
    work();
    return 0;
  } catch (...) {
    return -1;
  }
}

herr_t read_image(H5FD_t* file, H5FD_mem_t, hid_t, haddr_t at, std::size_t bytes, void* to) {
  return guarded([&] {
    own(file)->image->read(static_cast<std::int64_t>(at), std::span(static_cast<std::byte*>(to), bytes));
  });
}
herr_t write_image(H5FD_t* file, H5FD_mem_t, hid_t, haddr_t at, std::size_t bytes, const void* from) {
  return guarded([&] {
    own(file)->image->write(static_cast<std::int64_t>(at),
                            std::span(static_cast<const std::byte*>(from), bytes));
  });
}
herr_t truncate(H5FD_t* file, hid_t, hbool_t) {
  return guarded([&] { own(file)->image->resize(static_cast<std::int64_t>(own(file)->end_of_allocation)); });
}

/// Newer libraries want to know which version of the structure this is.
template <class Class>
void set_version(Class& driver) {
#ifdef H5FD_CLASS_VERSION
  driver.version = H5FD_CLASS_VERSION;
#else
  static_cast<void>(driver);
#endif
}

H5FD_class_t make_driver() {
  H5FD_class_t driver{};
  set_version(driver);
  driver.name = "sparse image";
  driver.maxaddr = static_cast<haddr_t>(std::numeric_limits<std::int64_t>::max());
  driver.fc_degree = H5F_CLOSE_STRONG;
  driver.fapl_size = sizeof(Settings);
  driver.open = open_image;
  driver.close = close_image;
  driver.query = query;
  driver.get_eoa = end_of_allocation;
  driver.set_eoa = set_end_of_allocation;
  driver.get_eof = end_of_file;
  driver.read = read_image;
  driver.write = write_image;
  driver.truncate = truncate;
  return driver;
}

/// Registered once and for good, as the library's own drivers are: at a file's end HDF5 1.10 gives its hold
/// on the driver back before it uses it for the last time.
hid_t driver() {
  static const hid_t id = [] {
    const H5FD_class_t driver_class = make_driver();
    return check(H5FDregister(&driver_class), "an image in memory", "register its driver");
  }();
  return id;
}

}  // namespace

void use_image(const Hdf5Id& access, SparseImage& image) {
  const Settings settings{&image};
  check(H5Pset_driver(access.get(), driver(), &settings), "an image in memory", "use its driver");
}

}  // namespace verne::hdf5_detail
