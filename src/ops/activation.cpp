#include "verne/ops/activation.hpp"

#include "checks.hpp"

namespace verne {
namespace {

void check_same(const Checks& check, std::string_view argument, const Tensor& tensor, const Tensor& like) {
  check.dense(argument, tensor, like.shape());
  check.type(argument, tensor, like.dtype());
}

/// The gated pair of y.
void check_gate_up(const Checks& check, std::string_view argument, const Tensor& gate_up, const Tensor& y) {
  check.dense(argument, gate_up, {y.size(0), 2 * y.size(1)});
  check.type(argument, gate_up, y.dtype());
}

}  // namespace

void SwiGluForward::check() const {
  const Checks check(kName);
  check.rank("y", y.data, 2);
  check.real("y", y.data);
  check.contiguous("y", y.data);
  check_gate_up(check, "gate_up", gate_up, y.data);
}
Cost SwiGluForward::cost() const {
  return {.flops = 5 * static_cast<double>(y.data.count()), .bytes = bytes({y.data, gate_up})};
}
Access SwiGluForward::access() const {
  return {.reads = present({gate_up}), .writes = present({y})};
}

void SwiGluBackward::check() const {
  const Checks check(kName);
  check.rank("dy", dy, 2);
  check.real("dy", dy);
  check.contiguous("dy", dy);
  check_gate_up(check, "gate_up", gate_up, dy);
  check_gate_up(check, "dgate_up", dgate_up, dy);
}
Cost SwiGluBackward::cost() const {
  return {.flops = 10 * static_cast<double>(dy.count()), .bytes = bytes({dy, gate_up, dgate_up})};
}
Access SwiGluBackward::access() const {
  return {.reads = present({dy, gate_up}), .writes = present({dgate_up})};
}

void SquaredReluForward::check() const {
  const Checks check(kName);
  check.real("x", x);
  check_same(check, "x", x, x);
  check_same(check, "y", y.data, x);
}
Cost SquaredReluForward::cost() const {
  return {.flops = 2 * static_cast<double>(x.count()), .bytes = bytes({x, y.data})};
}
Access SquaredReluForward::access() const {
  return {.reads = present({x}), .writes = present({y})};
}

void SquaredReluBackward::check() const {
  const Checks check(kName);
  check.real("x", x);
  check_same(check, "x", x, x);
  check_same(check, "dy", dy, x);
  check_same(check, "dx", dx, x);
}
Cost SquaredReluBackward::cost() const {
  return {.flops = 3 * static_cast<double>(x.count()), .bytes = bytes({x, dy, dx})};
}
Access SquaredReluBackward::access() const {
  return {.reads = present({dy, x}), .writes = present({dx})};
}

}  // namespace verne
