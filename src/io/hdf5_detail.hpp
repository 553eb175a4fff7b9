#pragma once
#include <hdf5.h>

#include <string>
#include <string_view>
#include <vector>

#include "verne/base/error.hpp"
#include "verne/io/hdf5.hpp"

/// What the parts of the HDF5 layer share.
namespace verne::hdf5_detail {

/// The library's words for its last failure, which is forgotten.
std::string library_message();

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

Hdf5Id owned(hid_t id, const std::string& file, std::string_view what);
Hdf5Id owned_user(hid_t id, const std::string& file, std::string_view what);

/// A property list for creating objects of a kind; object times are not stored.
Hdf5Id creation(hid_t kind);
/// Throws UserError unless every step of `path` is a link within the file: a foreign file must not lead
/// elsewhere. `name` is the file's.
void require_inner_links(const Hdf5Id& file, const std::string& path, const std::string& name);

/// The element type on disk and in memory.
Hdf5Id library_type(Hdf5Type type);
/// UTF-8 strings of `size` bytes, and of any length.
Hdf5Id text_type(std::size_t size);
Hdf5Id variable_text_type();
std::vector<hsize_t> extents_of(const Hdf5Id& dataspace, const std::string& file);

}  // namespace verne::hdf5_detail
