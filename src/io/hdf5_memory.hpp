#pragma once
#include "verne/io/hdf5.hpp"
#include "verne/io/sparse_image.hpp"

namespace verne::hdf5_detail {

/// Makes files of a file access property list live in `image`, which must outlive them.
void use_image(const Hdf5Id& access, SparseImage& image);

}  // namespace verne::hdf5_detail
