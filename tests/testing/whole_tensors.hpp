#pragma once
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "verne/base/error.hpp"
#include "verne/comm/host_group.hpp"
#include "verne/io/convert.hpp"
#include "verne/io/tensor_part.hpp"

namespace verne::testing {

/// Logical tensors from all ranks' parts, whole on every rank, by name. Of an element that several ranks hold
/// the last rank's counts; one that nobody holds is an error. For small tensors.
inline std::map<std::string, std::vector<double>> whole_tensors(const HostGroup& group, Queue& queue,
                                                                const std::vector<TensorPart>& parts) {
  struct Element {
    std::int64_t part, index;
    double value;
  };
  std::vector<Element> own;
  std::map<const std::byte*, std::vector<double>> locals;  // many parts lie in the same memory
  for (std::size_t p = 0; p < parts.size(); ++p) {
    const Tensor& local = parts[p].local;
    if (parts[p].runs.empty()) continue;
    auto& values = locals[local.raw()];
    if (std::ssize(values) != local.count()) {
      std::vector<std::byte> bytes(static_cast<std::size_t>(local.bytes()));
      queue.download(bytes, local);
      values.resize(static_cast<std::size_t>(local.count()));
      convert(local.dtype(), bytes, DType::f64, std::as_writable_bytes(std::span(values)));
    }
    for (const ElementRuns& run : parts[p].runs)
      for (std::int64_t i = 0; i < run.count; ++i)
        for (std::int64_t j = 0; j < run.length; ++j)
          own.push_back({static_cast<std::int64_t>(p), run.global + i * run.global_stride + j,
                         values[static_cast<std::size_t>(run.local + i * run.local_stride + j)]});
  }
  std::string text(own.size() * sizeof(Element), '\0');
  if (!own.empty()) std::memcpy(text.data(), own.data(), text.size());
  std::map<std::string, std::vector<double>> tensors;
  std::map<std::string, std::vector<bool>> held;
  for (const TensorPart& part : parts) {
    tensors[part.name].resize(static_cast<std::size_t>(part.shape.count()));
    held[part.name].resize(tensors[part.name].size());
  }
  for (const std::string& one : group.all_gather_text(text)) {
    std::vector<Element> elements(one.size() / sizeof(Element));
    if (!one.empty()) std::memcpy(elements.data(), one.data(), one.size());
    for (const Element& element : elements) {
      const std::string& name = parts[static_cast<std::size_t>(element.part)].name;
      tensors[name][static_cast<std::size_t>(element.index)] = element.value;
      held[name][static_cast<std::size_t>(element.index)] = true;
    }
  }
  for (const auto& [name, elements] : held)
    for (const bool element : elements) require(element, "{}: an element that no rank holds", name);
  return tensors;
}

}  // namespace verne::testing
