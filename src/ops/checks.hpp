#pragma once
#include <initializer_list>
#include <string_view>
#include <vector>

#include "verne/ops/launch.hpp"

namespace verne {

/// Facts about an operation's arguments. Each throws InternalError that names operation, argument and what
/// was found.
class Checks {
 public:
  explicit Checks(std::string_view operation) : operation_(operation) {}

  /// There, of `shape`; rows may be strided.
  void shape(std::string_view argument, const Tensor& tensor, const Shape& shape) const;
  /// There, of `shape`, contiguous.
  void dense(std::string_view argument, const Tensor& tensor, const Shape& shape) const;
  void rank(std::string_view argument, const Tensor& tensor, int rank) const;
  void contiguous(std::string_view argument, const Tensor& tensor) const;
  void type(std::string_view argument, const Tensor& tensor, DType expected) const;
  void type(std::string_view argument, const Tensor& tensor, std::initializer_list<DType> expected) const;
  /// float32, bfloat16 or float64: what activations and weights may be.
  void real(std::string_view argument, const Tensor& tensor) const;
  void absent(std::string_view argument, const Tensor& tensor, std::string_view reason) const;

  template <class... Args>
  void that(bool condition, fmt::format_string<Args...> format, Args&&... args) const {
    if (!condition) fail(fmt::format(format, std::forward<Args>(args)...));
  }

 private:
  [[noreturn]] void fail(const std::string& fact) const;
  void present(std::string_view argument, const Tensor& tensor) const;

  std::string_view operation_;
};

/// Statistics and parameter gradients of a storage type: float32, and float64 for float64.
constexpr DType statistics_type(DType storage) {
  return storage == DType::f64 ? DType::f64 : DType::f32;
}

/// Bytes of all the tensors that are there.
double bytes(std::initializer_list<Tensor> tensors);

/// The tensors that are there, for `access()`; an operand's scale behind its data.
std::vector<Tensor> present(std::initializer_list<Operand> operands);
/// An output as what is read before: itself where it is added to, nothing where it is overwritten.
inline Tensor added_to(const Tensor& output, Accumulate accumulate) {
  return accumulate == Accumulate::yes ? output : Tensor{};
}

}  // namespace verne
