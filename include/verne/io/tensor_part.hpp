#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "verne/tensor/queue.hpp"
#include "verne/tensor/tensor.hpp"

namespace verne {

/// Equally spaced runs of consecutive elements that a logical tensor (row-major, flattened) and a local
/// buffer share: run i covers logical elements [global + i·global_stride, +length) and local ones [local +
/// i·local_stride, +length). A row block of a matrix is one run; a column block is one run a row.
struct ElementRuns {
  std::int64_t global = 0, local = 0;
  std::int64_t length = 0;
  std::int64_t count = 1;
  std::int64_t global_stride = 0, local_stride = 0;
};

/// What one rank holds of one logical, unsharded tensor. What is saved is what a rank owns: over all ranks
/// every element is given exactly once. What is loaded is what a rank wants: several may want the same.
struct TensorPart {
  std::string name;  ///< the logical tensor's name, a Hugging Face name
  DType dtype;       ///< of the logical tensor as stored in a file
  Shape shape;       ///< of the logical tensor
  Tensor local;      ///< contiguous memory on `queue`'s device; its dtype may differ from `dtype` (f32, bf16,
                     ///< f16: converted)
  std::vector<ElementRuns> runs;  ///< empty where this rank holds nothing of it: the part may be left out
};

/// A logical tensor of a file.
struct TensorInfo {
  std::string name;
  DType dtype;
  Shape shape;
  std::int64_t bytes() const { return bytes_of(dtype, shape.count()); }
};

/// A tensor of a file that no Tensor can hold: a dtype or a number of dimensions that Verne does not know.
struct UnsupportedTensor {
  std::string name;
  std::string dtype;  ///< as the file spells it
  std::vector<std::int64_t> shape;
  std::string text() const;  ///< "name of dtype I16 and shape [2, 3]"
};

/// Named logical tensors that can be read piecewise: a Hugging Face folder or a checkpoint's group. Reading
/// is local (no collective), thread-safe for distinct calls, and gives the bytes as stored.
class TensorSource {
 public:
  virtual ~TensorSource() = default;
  virtual const std::vector<TensorInfo>& tensors() const = 0;
  /// Tensors that are there too, but cannot be read.
  virtual const std::vector<UnsupportedTensor>& unsupported() const;
  /// Reads `to.size()` bytes from byte `offset` of the tensor's row-major data. Throws UserError naming the
  /// file for a short or unreadable file.
  virtual void read(const TensorInfo& tensor, std::int64_t offset, std::span<std::byte> to) const = 0;
  /// Reads block `block` (blocks.hpp) whole. Sources with checksums verify it: UserError naming file, tensor
  /// and block.
  virtual void read_block(const TensorInfo& tensor, std::int64_t block, std::span<std::byte> to) const;
  /// Block `block` will be read soon: the device may begin, and nobody waits. A hint.
  virtual void will_read_block(const TensorInfo& tensor, std::int64_t block) const;
  /// For messages: the folder or file.
  virtual std::string origin() const = 0;

  /// nullptr where there is no such tensor that can be read. Linear in the number of tensors.
  const TensorInfo* find(const std::string& name) const;
};

}  // namespace verne
