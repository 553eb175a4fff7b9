#include <hdf5.h>

#include <algorithm>
#include <array>
#include <limits>

#include "hdf5_detail.hpp"
#include "verne/base/checked.hpp"
#include "verne/base/error.hpp"
#include "verne/io/hdf5.hpp"

namespace verne {

using namespace hdf5_detail;

namespace {

constexpr std::array kTensorTypes{DType::bf16, DType::f32, DType::f16, DType::f8_e4m3, DType::u8,
                                  DType::f64,  DType::i32, DType::i64, DType::u32};

/// The library's types of tensors, made once for many.
class TypeTable {
 public:
  TypeTable() {
    for (const DType type : kTensorTypes) ids_.push_back(library_type(hdf5_type(type)));
  }
  hid_t id(DType type) const {
    const auto found = std::find(kTensorTypes.begin(), kTensorTypes.end(), type);
    return ids_[static_cast<std::size_t>(found - kTensorTypes.begin())].get();
  }
  std::optional<DType> find(hid_t type) const {
    for (std::size_t i = 0; i < ids_.size(); ++i)
      if (H5Tequal(type, ids_[i].get()) > 0) return kTensorTypes[i];
    return std::nullopt;
  }

 private:
  std::vector<Hdf5Id> ids_;
};

struct Link {
  std::string name;
  H5L_type_t type;
};

std::vector<Link> links_of(const Hdf5Id& group, const std::string& file, const std::string& path) {
  std::vector<Link> links;
  hsize_t index = 0;
  const auto add = [](hid_t, const char* name, const H5L_info_t* info, void* to) -> herr_t {
    static_cast<std::vector<Link>*>(to)->push_back({name, info->type});
    return 0;
  };
  check_user(H5Literate(group.get(), H5_INDEX_NAME, H5_ITER_INC, &index, add, &links), file, "list " + path);
  std::sort(links.begin(), links.end(), [](const Link& a, const Link& b) { return a.name < b.name; });
  return links;
}

Shape shape_of(const Hdf5Id& dataset, DType dtype, const std::string& where) {
  const Hdf5Id space(H5Dget_space(dataset.get()));
  if (H5Sget_simple_extent_type(space.get()) == H5S_NULL) throw_user_error("{} is empty", where);
  const std::vector<hsize_t> extents = extents_of(space, where);
  if (extents.size() > static_cast<std::size_t>(Shape::kMaxRank)) {
    throw_user_error("{} has {} dimensions, at most {} are known", where, extents.size(), Shape::kMaxRank);
  }
  std::vector<std::int64_t> sizes;
  std::optional<std::int64_t> bits_total = bits(dtype);
  for (const hsize_t extent : extents) {
    sizes.push_back(static_cast<std::int64_t>(extent));
    // An extent of 0 makes the others no smaller.
    bits_total = sizes.back() < 0 ? std::nullopt
                                  : checked_multiply(*bits_total, std::max<std::int64_t>(sizes.back(), 1));
    if (!bits_total) throw_user_error("{} is too large", where);
  }
  return Shape(std::span<const std::int64_t>(sizes));
}

/// Undefined for chunked, compact and external storage.
std::int64_t offset_of(const Hdf5Id& dataset, const std::string& where) {
  const haddr_t offset = H5Dget_offset(dataset.get());
  if (offset == HADDR_UNDEF || offset > static_cast<haddr_t>(std::numeric_limits<std::int64_t>::max())) {
    H5Eclear2(H5E_DEFAULT);
    throw_user_error("{} is not stored in one piece; `h5repack -l CONTI` makes it so", where);
  }
  return static_cast<std::int64_t>(offset);
}

}  // namespace

std::vector<std::int64_t> Hdf5File::create_tensors(const std::string& group,
                                                   std::span<const TensorInfo> tensors) {
  create_group(group);
  const std::string file = path_.string();
  const Hdf5Id parent =
      owned(H5Gopen2(id_.get(), group.c_str(), H5P_DEFAULT), file, "open the new group " + group);
  const Hdf5Id properties = creation(H5P_DATASET_CREATE);
  H5Pset_layout(properties.get(), H5D_CONTIGUOUS);
  H5Pset_alloc_time(properties.get(), H5D_ALLOC_TIME_EARLY);
  H5Pset_fill_time(properties.get(), H5D_FILL_TIME_NEVER);
  const TypeTable types;
  std::vector<std::int64_t> offsets;
  offsets.reserve(tensors.size());
  for (const TensorInfo& tensor : tensors) {
    require(tensor.name.find('/') == std::string::npos, "tensor name {} holds a slash", tensor.name);
    const std::vector<hsize_t> sizes(tensor.shape.extents().begin(), tensor.shape.extents().end());
    const Hdf5Id space(sizes.empty()
                           ? H5Screate(H5S_SCALAR)
                           : H5Screate_simple(static_cast<int>(sizes.size()), sizes.data(), nullptr));
    const Hdf5Id dataset = owned(H5Dcreate2(parent.get(), tensor.name.c_str(), types.id(tensor.dtype),
                                            space.get(), H5P_DEFAULT, properties.get(), H5P_DEFAULT),
                                 file, "create " + group + "/" + tensor.name);
    offsets.push_back(tensor.shape.count() == 0 ? 0 : offset_of(dataset, file + ": " + tensor.name));
  }
  return offsets;
}

std::vector<StoredTensor> Hdf5File::tensors(const std::string& group) const {
  std::vector<StoredTensor> tensors;
  if (!contains(group)) return tensors;
  const std::string file = path_.string();
  require_inner_links(id_, group, file);
  const Hdf5Id parent = owned_user(H5Gopen2(id_.get(), group.c_str(), H5P_DEFAULT), file, "open " + group);
  const TypeTable types;
  for (const Link& link : links_of(parent, file, group)) {
    const std::string where = file + ": " + group + "/" + link.name;
    if (link.type != H5L_TYPE_HARD) throw_user_error("{} is a link to elsewhere", where);
    const Hdf5Id dataset =
        owned_user(H5Dopen2(parent.get(), link.name.c_str(), H5P_DEFAULT), file, "open dataset " + link.name);
    const Hdf5Id type(H5Dget_type(dataset.get()));
    const std::optional<DType> dtype = types.find(type.get());
    if (!dtype) throw_user_error("{} has an element type that no tensor has", where);
    const Shape shape = shape_of(dataset, *dtype, where);
    tensors.push_back({{link.name, *dtype, shape}, shape.count() == 0 ? 0 : offset_of(dataset, where)});
  }
  return tensors;
}

}  // namespace verne
