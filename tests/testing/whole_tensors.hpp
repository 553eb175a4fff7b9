// Logical tensors put together from the parts of all ranks.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "verne/comm/host_group.hpp"
#include "verne/io/convert.hpp"
#include "verne/io/tensor_part.hpp"
#include "verne/tensor/queue.hpp"

namespace verne::testing {

/// The tensors that `parts` of any rank speak of, whole on every rank. Every element is held by exactly one
/// rank: what is held twice comes out doubled, what nobody holds as 0. Ranks may hold different tensors.
/// Collective.
inline std::map<std::string, std::vector<double>> whole_tensors(const HostGroup& group, Queue& queue,
                                                                const std::vector<TensorPart>& parts) {
  std::map<std::string, std::vector<double>> own;
  std::string listed;
  for (const TensorPart& part : parts) {
    std::vector<double>& values = own[part.name];
    values.resize(static_cast<std::size_t>(part.shape.count()));
    listed += part.name + "\n" + std::to_string(part.shape.count()) + "\n";
    if (part.runs.empty()) continue;
    std::vector<std::byte> raw(static_cast<std::size_t>(part.local.bytes()));
    queue.download(raw, part.local);
    std::vector<double> local(static_cast<std::size_t>(part.local.count()));
    convert(part.local.dtype(), raw, DType::f64, std::as_writable_bytes(std::span(local)));
    for (const ElementRuns& run : part.runs)
      for (std::int64_t i = 0; i < run.count; ++i)
        for (std::int64_t e = 0; e < run.length; ++e)
          values[static_cast<std::size_t>(run.global + i * run.global_stride + e)] +=
              local[static_cast<std::size_t>(run.local + i * run.local_stride + e)];
  }
  std::map<std::string, std::size_t> all;
  for (const std::string& text : group.all_gather_text(listed)) {
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t name_end = text.find('\n', at), count_end = text.find('\n', name_end + 1);
      all[text.substr(at, name_end - at)] = std::stoul(text.substr(name_end + 1, count_end - name_end - 1));
      at = count_end + 1;
    }
  }
  for (const auto& [name, count] : all) {
    std::vector<double>& values = own[name];
    values.resize(count);
    if (group.size() > 1) group.sum(std::span<double>(values));
  }
  return own;
}

}  // namespace verne::testing
