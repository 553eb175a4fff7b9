#include "checks.hpp"

#include <algorithm>
#include <string>
#include <vector>

namespace verne {

void Checks::fail(const std::string& fact) const {
  throw InternalError(fmt::format("{}: {}", operation_, fact));
}

void Checks::present(std::string_view argument, const Tensor& tensor) const {
  // A tensor without elements may lie nowhere.
  that(!tensor.empty() || (tensor.rank() > 0 && tensor.count() == 0), "{} is missing", argument);
}

void Checks::shape(std::string_view argument, const Tensor& tensor, const Shape& shape) const {
  present(argument, tensor);
  that(tensor.shape() == shape, "{} has the shape {}, not {}", argument, tensor.shape().text(), shape.text());
}

void Checks::dense(std::string_view argument, const Tensor& tensor, const Shape& shape) const {
  this->shape(argument, tensor, shape);
  contiguous(argument, tensor);
}

void Checks::rank(std::string_view argument, const Tensor& tensor, int rank) const {
  present(argument, tensor);
  that(tensor.rank() == rank, "{} has the shape {}, which is not of rank {}", argument, tensor.shape().text(),
       rank);
}

void Checks::contiguous(std::string_view argument, const Tensor& tensor) const {
  that(tensor.contiguous(), "{} {} is strided by {}, not contiguous", argument, tensor.shape().text(),
       tensor.stride());
}

void Checks::type(std::string_view argument, const Tensor& tensor, DType expected) const {
  type(argument, tensor, {expected});
}

void Checks::type(std::string_view argument, const Tensor& tensor,
                  std::initializer_list<DType> expected) const {
  if (std::find(expected.begin(), expected.end(), tensor.dtype()) != expected.end()) return;
  std::vector<std::string_view> names;
  for (const DType one : expected) names.push_back(name(one));
  fail(fmt::format("{} is {}, not {}", argument, name(tensor.dtype()), fmt::join(names, " or ")));
}

void Checks::real(std::string_view argument, const Tensor& tensor) const {
  type(argument, tensor, {DType::f32, DType::bf16, DType::f64});
}

void Checks::absent(std::string_view argument, const Tensor& tensor, std::string_view reason) const {
  that(tensor.empty(), "{} {} is there {}", argument, tensor.shape().text(), reason);
}

double bytes(std::initializer_list<Tensor> tensors) {
  double sum = 0;
  for (const Tensor& tensor : tensors) {
    if (tensor) sum += static_cast<double>(tensor.bytes());
  }
  return sum;
}

std::vector<Tensor> present(std::initializer_list<Operand> operands) {
  std::vector<Tensor> tensors;
  for (const Operand& operand : operands) {
    if (operand.data) tensors.push_back(operand.data);
    if (operand.scale) tensors.push_back(operand.scale);
  }
  return tensors;
}

}  // namespace verne
